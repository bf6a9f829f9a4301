"""Set two sweeps side by side on one page, and say why their accuracies may not be comparable."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from optuna import visualization
from optuna.trial import TrialState

from platform.common.atomic import write_text
from platform.common.nested import flatten
from platform.common.text_format import percent
from platform.reporting.charts import BLUE, ORANGE, Chart, chart
from platform.reporting.page import cell_text, render_template
from platform.reporting.search_charts import ACCURACY
from platform.reporting.search_study import search_study
from platform.tracking.results import SweepResults, read_results
from platform.tracking.summary_sentences import answers
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.selection.champion import better_probability

_CONDITIONS = {
    "data.train_limit": "training images of a run",
    "data.validation_size": "validation images",
    "data.split_seed": "seed of the validation split",
    "epochs": "epochs of a run",
    "iterations": "iterations of a run",
    "report": "reported epoch",
}
"""Settings that must be equal for comparable accuracies."""


def write_comparison(first: SweepFolder, second: SweepFolder) -> tuple[Path, list[str]]:
    """Write the page next to the first sweep; return its path and why the sweeps are not comparable.

    Raises:
        UserError: a sweep does not exist, or a file in it is damaged.
    """
    one, two = read_results(first), read_results(second)
    reasons = incomparable(one, two)
    settings = _side_by_side(_config(one).items(), _config(two).items())
    variables = {
        "ids": (first.sweep_id, second.sweep_id),
        "reasons": reasons,
        "verdict": _verdict(one, two),
        "answers": _side_by_side(answers(one), answers(two)),
        "settings": [(name, old, new) for name, old, new in settings if old != new and name != "seed"],
        "charts": _charts(one, two),
    }
    path = first.path.parent / f"compare-{first.sweep_id}-{second.sweep_id}.html"
    write_text(path, render_template("compare.html.j2", variables))
    return path, reasons


def incomparable(first: SweepResults, second: SweepResults) -> list[str]:
    """Return the differences in data and budget because of which accuracies are not comparable."""
    facts = []
    for results in (first, second):
        config = _config(results)
        sha256 = str(((results.plan or {}).get("data") or {}).get("sha256", ""))[:12]
        facts.append(
            {
                "dataset": f"{results.data_label() or 'unknown'} {sha256}".strip(),
                **{label: config.get(name, "-") for name, label in _CONDITIONS.items()},
                "trials of the search": str(len(results.of_stage("search"))),
            }
        )
    rows = _side_by_side(facts[0].items(), facts[1].items())
    return [f"{name}: {old} and {new}" for name, old, new in rows if old != new]


def _side_by_side(
    first: Iterable[tuple[str, str]], second: Iterable[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    """Return (name, first value, second value) of every name in either; `-` for a missing value."""
    one, two = dict(first), dict(second)
    return [(name, one.get(name, "-"), two.get(name, "-")) for name in one | two]


def _config(results: SweepResults) -> dict[str, str]:
    """Return the flat configuration of the champion, or of the first trial."""
    first = results.trials[0].config if results.trials else {}
    return {
        name: cell_text(value) for name, value in flatten((results.champion or {}).get("config") or first)
    }


def _verdict(first: SweepResults, second: SweepResults) -> str:
    """Return the difference of the champions' expected validation accuracies, and which one is better."""
    estimates = [(results.champion_candidate() or {}).get("estimate") for results in (first, second)]
    if None in estimates:
        return "At least one sweep has no confirmed champion, so the champions cannot be compared."
    one, two = ((float(found["mean"]), float(found["error"])) for found in estimates if found)
    points, error = 100 * (two[0] - one[0]), 100 * math.hypot(one[1], two[1])
    names = first.folder.sweep_id, second.folder.sweep_id
    return (
        f"The champion of {names[1]} is expected {abs(points):.2f} points "
        f"{'above' if points > 0 else 'below'} that of {names[0]} on validation "
        f"(95 % interval {points - 1.96 * error:+.2f} to {points + 1.96 * error:+.2f}); it is the better "
        f"one with {percent(better_probability(two, one), 0)}."
    )


def _charts(first: SweepResults, second: SweepResults) -> list[Chart]:
    """Return both optimization histories, and the distributions of the accuracies."""
    studies = [search_study(results, results.of_stage("search")) for results in (first, second)]
    if not all(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) for study in studies):
        return []
    history = visualization.plot_optimization_history(studies, target_name=ACCURACY)
    for index, trace in enumerate(history.data):
        study, color = ((studies[0], BLUE), (studies[1], ORANGE))[index * 2 // len(history.data)]
        trace.update(marker={"color": color}, line={"color": color, "shape": "hv"}, name=study.study_name)
        trace.showlegend = trace.mode == "lines"
    distribution = visualization.plot_edf(studies, target_name=ACCURACY)
    for trace, color in zip(distribution.data, (BLUE, ORANGE), strict=True):
        trace.line = {"color": color}
    return [
        chart(history, "Optimization histories: completed trials", x="trial", y=ACCURACY),
        chart(
            distribution,
            "Distribution of the accuracies of the completed trials",
            x=ACCURACY,
            y="share of the trials at or below",
        ),
    ]
