"""Compare ways to choose among noisy recipes: regret, promise and cost, in simulations and recorded curves.

    python -m benchmarks.selection                    # the table in docs/results.md
    python -m benchmarks.selection --chart FILE.svg   # also the chart in the README
    python -m benchmarks.selection --record           # trains the missing runs; can be stopped and resumed

A simulated search has 12 recipes with one run each; the confirmation is the sweep's own code. The spread of
the recipes relative to the noise of a run is log-uniform between 0.5 and 4, so the searches are a mix of hard
and easy ones. Recipes and noise are normal, or drawn from the recorded curves. All accuracies are in units of
the noise. The replays with early stopping (ASHA, one slot) take search runs from the recorded curves, whose
recipes' means over all recorded seeds count as true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.command import Parser, at_least
from benchmarks.confirmations import Design, Searches, confirm
from benchmarks.curves import Curves, read_curves, record_space
from platform.common.errors import run_command
from platform.space.settings import Confirm

Floats = NDArray[np.float64]

FOLDER = Path(__file__).parent / "data"
RECIPES = 12
LEAST_RATIO, LARGEST_RATIO = 0.5, 4.0
SURE = 0.9
"""Claimed probability of the decisions that are judged on their own."""
ASHA = [(grace, factor) for factor in (2.0, 3.0, 4.0) for grace in (1, 2, 3)]


def _adaptive(tolerance: float, *, slots: int = 1) -> Design:
    rule = Confirm(min_seeds=2, max_runs=16, tolerance=tolerance, confidence=0.95)
    name = f"adaptive, stops at {tolerance:g}" + (f", {slots} slots" if slots > 1 else "")
    return Design(name=name, candidates=4, rule=rule, slots=slots)


def _fixed(candidates: int, seeds: int) -> Design:
    return Design(name=f"fixed {candidates} x {seeds}", candidates=candidates, seeds=seeds)


SINGLE = Design(name="best single run")
FIXED = [_fixed(*size) for size in ((2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 3), (4, 4), (4, 6))]
ADAPTIVE = [*(_adaptive(tolerance) for tolerance in (0.3, 0.2, 0.1)), _adaptive(0.2, slots=4)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record curves, or compare the designs, print the tables and write the record."""
    given = _parser().parse(arguments)
    if given.record:
        record_space(
            given.curves,
            given.space,
            configurations=given.configurations,
            seeds=given.recorded_seeds,
            threads=given.threads,
            data_dir=given.data_dir,
        )
        return 0
    curves = read_curves(given.curves)
    where, shape = record.context(), Shape.of(curves)
    settings = {
        "curves": dict(curves.settings),
        "configurations": curves.accuracy.shape[0],
        "recorded_seeds": curves.accuracy.shape[1],
        "epochs": curves.accuracy.shape[2],
        "recorded_ratio": shape.spread / shape.deviation,
        "recorded_deviation": shape.deviation,
        "searches": given.searches,
        "replays": given.replays,
    }
    results = []
    for source, drawn in (("normal", None), ("recorded", shape)):
        searches = simulated(given.searches, drawn)
        results += [row(source, design, searches) for design in (SINGLE, *FIXED, *ADAPTIVE)]
    results += [early_stopping(curves, shape, *rungs, replays=given.replays) for rungs in ASHA]
    print(table(where, settings, results))
    if given.chart:
        chart(given.chart, results)
    if given.json:
        record.write(given.json, record.document("selection", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser("selection", "Compare ways to choose among noisy recipes.")
    add = parser.add_argument
    curves = FOLDER / "curves.parquet"
    add("--curves", type=Path, default=curves, metavar="FILE", help="default: benchmarks/data/curves.parquet")
    add("--searches", type=at_least(2), default=4000, metavar="N", help="simulated; default: 4000")
    add("--replays", type=at_least(2), default=500, metavar="N", help="of early stopping; default: 500")
    add("--chart", type=Path, metavar="FILE", help="draw regret and promise over runs (.svg, .png)")
    add("--record", action="store_true", help="train the missing runs instead")
    add("--space", default=str(FOLDER / "curves.yaml"), help="--record: default benchmarks/data/curves.yaml")
    add("--configurations", type=at_least(2), default=20, metavar="N", help="--record: default 20")
    add("--recorded-seeds", type=at_least(2), default=16, metavar="N", help="--record: default 16")
    add("--threads", type=at_least(1), metavar="N", help="--record: CPU threads; default: cores")
    add("--data-dir", type=Path, metavar="DIR", help="--record: folder of the images")
    return parser


class Shape(NamedTuple):
    """The recorded distributions of recipes and noise."""

    gaps: Floats
    """Means of the recipes with mean 0 and standard deviation 1."""
    noise: Floats
    """Deviations of the runs from the mean of their recipe, with standard deviation 1."""
    spread: float
    """Standard deviation of the recipes, as accuracy, without the part that the noise adds."""
    deviation: float
    """Standard deviation of the noise, as accuracy."""

    @classmethod
    def of(cls, curves: Curves) -> Shape:
        """Return the distributions of a recording."""
        final, seeds = curves.accuracy[:, :, -1], curves.accuracy.shape[1]
        noise = (final - final.mean(axis=1, keepdims=True)) * np.sqrt(seeds / (seeds - 1))
        deviation, means = float(np.sqrt((noise**2).mean())), curves.truth
        spread = np.sqrt(max(means.var(ddof=1) - deviation**2 / seeds, 0.0))
        return cls((means - means.mean()) / means.std(), noise.ravel() / deviation, float(spread), deviation)


def simulated(count: int, shape: Shape | None) -> Searches:
    """Return searches with normal recipes and noise, or with those of a recording."""
    random = np.random.default_rng(0)
    ratio = np.exp(random.uniform(np.log(LEAST_RATIO), np.log(LARGEST_RATIO), (count, 1)))
    if shape is None:
        gaps, noise = random.standard_normal((count, RECIPES)), random.standard_normal(100_000)
    else:
        most = min(RECIPES, len(shape.gaps))
        gaps = np.stack([random.choice(shape.gaps, most, replace=False) for _ in range(count)])
        noise = shape.noise
    truth = ratio * gaps
    return Searches(truth, truth + random.choice(noise, truth.shape), noise)


def row(source: str, design: Design, searches: Searches) -> dict[str, Any]:
    """Return the results of a design, in units of the noise."""
    outcomes = confirm(searches, design, np.random.default_rng(1))
    sure = outcomes.probability >= SURE
    return {
        "source": source,
        "design": design.name,
        "regret": float(outcomes.regret.mean()),
        "regret_error": float(outcomes.regret.std() / np.sqrt(len(outcomes.regret))),
        "claimed_regret": float(outcomes.loss.mean()),
        "best": float(outcomes.right.mean()),
        "claimed_best": float(outcomes.probability.mean()),
        "promise": float(outcomes.bias.mean()),
        "runs": float(outcomes.runs.mean()),
        "sure": float(sure.mean()),
        "sure_claimed": float(outcomes.probability[sure].mean()) if sure.any() else None,
        "sure_right": float(outcomes.right[sure].mean()) if sure.any() else None,
    }


def saved_share(results: Sequence[Mapping[str, Any]], source: str, design: str) -> float | None:
    """Return how many runs a design saves at equal regret, relative to the best fixed designs.

    The runs of fixed designs are interpolated between neighbors with the fewest runs for their regret.

    Returns:
        The share of the runs, or None if the regret is outside that of the fixed designs.
    """
    rows = [one for one in results if one.get("source") == source]
    [own] = [one for one in rows if one["design"] == design]
    fixed = sorted((one["runs"], one["regret"]) for one in rows if one["design"].startswith("fixed"))
    front = [each for place, each in enumerate(fixed) if all(each[1] < one[1] for one in fixed[:place])]
    for (fewer, worse), (more, better) in pairwise(front):
        if better <= own["regret"] <= worse:
            runs = fewer + (more - fewer) * (worse - own["regret"]) / (worse - better)
            return float(1 - own["runs"] / runs)
    return None


def early_stopping(
    curves: Curves, shape: Shape, grace_epochs: int, reduction_factor: float, *, replays: int
) -> dict[str, Any]:
    """Replay searches with early stopping.

    Returns:
        How often the best recipe was stopped, the regret of that in units of the noise, and the share of the
        epochs.
    """
    random, epochs, truth = np.random.default_rng(0), curves.accuracy.shape[2], curves.truth
    lost, trained = [], 0
    for _ in range(replays):
        present = random.permutation(len(truth))[:RECIPES]
        runs = curves.accuracy[present, random.integers(curves.accuracy.shape[1], size=len(present))]
        lengths = np.array(
            stopped_after(list(runs), grace_epochs=grace_epochs, reduction_factor=reduction_factor)
        )
        means = truth[present] / shape.deviation
        trained += int(lengths.sum())
        lost.append(means.max() - means[lengths == epochs].max())
    return {
        "grace_epochs": grace_epochs,
        "reduction_factor": reduction_factor,
        "epochs": epochs,
        "lost_the_best": float(np.mean(np.array(lost) > 0)),
        "regret_of_stopping": float(np.mean(lost)),
        "epochs_share": trained / (replays * min(RECIPES, len(truth)) * epochs),
    }


def stopped_after(curves: Sequence[Floats], *, grace_epochs: int, reduction_factor: float) -> list[int]:
    """Return the number of epochs of each curve, trained sequentially, under the sweep's own scheduler."""
    from types import SimpleNamespace

    from ray.tune.schedulers import TrialScheduler

    from platform.tuning.sampling.schedulers import EpochAsha

    asha = EpochAsha(grace_epochs=grace_epochs, reduction_factor=reduction_factor)
    lengths = []
    for number, curve in enumerate(curves):
        trial = SimpleNamespace(trial_id=str(number), config={"trial_id": str(number)})
        asha.on_trial_add(None, trial)
        for epoch, accuracy in enumerate(curve, start=1):
            result = {"epoch": epoch, "epochs": len(curve), "validation_accuracy": float(accuracy)}
            if asha.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        lengths.append(epoch)
    return lengths


def table(where: Mapping[str, Any], settings: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Format the results as tables."""
    recorded = (
        f"{settings['configurations']} configurations x {settings['recorded_seeds']} seeds x "
        f"{settings['epochs']} epochs recorded: noise {100 * settings['recorded_deviation']:.2f} points, "
        f"recipes differ by {settings['recorded_ratio']:.2f} times of it; {settings['searches']} simulated "
        "searches"
    )
    lines = [record.describe(where), recorded]
    for source in ("normal", "recorded"):
        lines.append("")
        lines.append(
            f"{f'{source} recipes and noise':28} {'runs':>5} {'saved':>6} {'regret':>13} {'claimed':>8} "
            f"{'best':>6} {'claimed':>8} {'promise':>8}  of those claimed with 90 % and more"
        )
        for one in (one for one in results if one.get("source") == source):
            saved = saved_share(results, source, one["design"]) if "adaptive" in one["design"] else None
            sure = ""
            if one["sure_right"] is not None:
                sure = f"{one['sure']:.0%}: claimed {one['sure_claimed']:.1%}, right {one['sure_right']:.1%}"
            lines.append(
                f"{one['design']:28} {one['runs']:5.1f} {'' if saved is None else f'{saved:.0%}':>6} "
                f"{one['regret']:.3f} ± {one['regret_error']:.3f} {one['claimed_regret']:8.3f} "
                f"{one['best']:6.1%} {one['claimed_best']:8.1%} {one['promise']:+8.3f}  {sure}"
            )
    lines += ["", "early stopping: grace, factor, lost the best, regret of that, epochs"]
    lines += [
        f"{one['grace_epochs']} of {one['epochs']}, {one['reduction_factor']:g}: "
        f"{one['lost_the_best']:6.1%} {one['regret_of_stopping']:.3f} {one['epochs_share']:.0%}"
        for one in results
        if "lost_the_best" in one
    ]
    return "\n".join([*lines, "", "regret, promise (promised minus true accuracy): in units of the noise"])


def chart(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Draw the regret and the promise of the designs over their runs, for normal recipes and noise."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "selection"
    rows = [one for one in results if one.get("source") == "normal" and "slots" not in one["design"]]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, key, label in zip(axes, ("regret", "promise"), ("regret", "promised minus true"), strict=True):
        for kind, color, marker in (("fixed", "#7f7f7f", "o"), ("adaptive", "#d6336c", "s")):
            mine = sorted((one["runs"], one[key]) for one in rows if one["design"].startswith(kind))
            axis.plot(*zip(*mine, strict=True), marker=marker, color=color, label=kind)
        [single] = [one for one in rows if one["design"] == SINGLE.name]
        axis.plot([single["runs"]], [single[key]], "x", color="#1c7ed6", label=SINGLE.name)
        axis.set(xlabel="confirmation runs, mean", ylabel=f"{label}, noise of a run = 1")
        axis.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
