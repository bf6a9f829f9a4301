"""Compare selection methods by replaying recorded learning curves: success rate, regret and cost.

    python -m benchmarks.selection                    # replays benchmarks/data/curves.parquet
    python -m benchmarks.selection --record           # trains the missing runs; can be stopped and resumed

In each replay every configuration gets one of its recorded seeds as its search run, in random order, and each
method selects a configuration. `protocol` is the sweep's own code: early stopping (ASHA, one slot),
`top_candidates`, `summarize` and `choose_champion`, with other seeds for the confirmation. The true accuracy
of a configuration is its mean over all recorded seeds. It has a standard error and shares runs with the
methods' data, so differences between methods are more reliable than their absolute values.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.command import Parser, at_least
from benchmarks.curves import Curves, draw_configurations, read_curves, record_curves
from platform.common.cores import usable_cores
from platform.common.errors import UsageError, run_command
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.selection.champion import RankedTrial, choose_champion, summarize, top_candidates

CURVES = Path(__file__).parent / "data" / "curves.parquet"


@dataclass(frozen=True, kw_only=True)
class SelectedConfig:
    """Result of one method in one replay."""

    config: int
    reported_accuracy: float
    """Validation accuracy, 0..1, that the method reports for it."""
    epochs: int
    """Epochs trained by the method."""
    separated: bool | None = None
    """Whether the method reports the winner as significantly better than the second."""


@dataclass(frozen=True, kw_only=True)
class SelectionMethod:
    """A combination of early stopping and confirmation."""

    name: str
    stopping: bool
    candidates: int
    """Number of confirmed candidates; 1: the best search run wins."""
    seeds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Record curves, or replay them, print the table and write the record."""
    given = _parser().parse(arguments)
    if given.record:
        _record(given)
        return 0
    curves = read_curves(given.curves)
    methods = [
        SelectionMethod(name="best single run", stopping=False, candidates=1, seeds=0),
        SelectionMethod(name="best single run, early stopping", stopping=True, candidates=1, seeds=0),
        SelectionMethod(
            name="protocol without early stopping",
            stopping=False,
            candidates=given.candidates,
            seeds=given.seeds,
        ),
        SelectionMethod(name="protocol", stopping=True, candidates=given.candidates, seeds=given.seeds),
    ]
    if curves.accuracy.shape[1] <= given.seeds:
        raise UsageError(
            f"--seeds {given.seeds} and the search run need {given.seeds + 1} recorded seeds; "
            f"{given.curves} has {curves.accuracy.shape[1]}"
        )
    where = record.context()
    settings = {
        "curves": dict(curves.settings),
        "configurations": curves.accuracy.shape[0],
        "recorded_seeds": curves.accuracy.shape[1],
        "epochs": curves.accuracy.shape[2],
        "replays": given.replays,
        "grace_epochs": given.grace_epochs,
        "reduction_factor": given.reduction_factor,
        "configurations_per_replay": given.configurations_per_replay,
    }
    results = [study(curves, method, given) for method in methods]
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("selection", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser("selection", "Compare selection methods by replaying recorded learning curves.")
    add = parser.add_argument
    add("--curves", type=Path, default=CURVES, metavar="FILE", help="default: benchmarks/data/curves.parquet")
    add("--replays", type=at_least(1), default=2000, metavar="N", help="default: 2000")
    add("--configurations-per-replay", type=at_least(2), metavar="N", help="default: all recorded ones")
    add("--candidates", type=at_least(1), default=3, metavar="N", help="default: 3")
    add("--seeds", type=at_least(1), default=3, metavar="N", help="runs of each candidate; default: 3")
    add("--grace-epochs", type=at_least(1), default=2, metavar="N", help="first rung; default: 2")
    add("--reduction-factor", type=float, default=3.0, metavar="X", help="default: 3")
    add("--record", action="store_true", help="train the missing runs instead")
    add("--space", default="resnet32_cifar", help="--record: the search space")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="--record: changes of the space's settings")
    add("--configurations", type=at_least(2), default=16, metavar="N", help="--record: default 16")
    add("--recorded-seeds", type=at_least(2), default=8, metavar="N", help="--record: default 8")
    add("--threads", type=at_least(1), metavar="N", help="--record: CPU threads; default: cores")
    add("--data-dir", type=Path, metavar="DIR", help="--record: folder of the images")
    return parser


def study(curves: Curves, method: SelectionMethod, given: argparse.Namespace) -> dict[str, Any]:
    """Replay `method` and return its row of the record; the random draws are equal for all methods."""
    draws = np.random.default_rng(0)
    truth, epochs = curves.truth, curves.accuracy.shape[2]
    count = min(given.configurations_per_replay or len(truth), len(truth))
    choices, best = [], []
    for _ in range(given.replays):
        present = draws.permutation(len(truth))[:count]
        seed_order = np.array([draws.permutation(curves.accuracy.shape[1]) for _ in present])
        best.append(present[np.argmax(truth[present])])
        choices.append(
            select(
                curves,
                method,
                present,
                seed_order,
                grace_epochs=given.grace_epochs,
                reduction_factor=given.reduction_factor,
            )
        )
    chosen = np.array([choice.config for choice in choices])
    regret = truth[np.array(best)] - truth[chosen]
    spent = np.array([choice.epochs for choice in choices])
    separated = [
        (choice, right)
        for choice, right in zip(choices, chosen == np.array(best), strict=True)
        if choice.separated
    ]
    return {
        "way": method.name,
        "candidates": method.candidates,
        "seeds": method.seeds,
        "picked_the_best": float(np.mean(chosen == np.array(best))),
        "regret_points_mean": float(100 * regret.mean()),
        "regret_points_p95": float(100 * np.quantile(regret, 0.95)),
        "optimism_points_mean": float(100 * np.mean([c.reported_accuracy for c in choices] - truth[chosen])),
        "epochs_mean": float(spent.mean()),
        "epochs_of_full_search": float(count * epochs),
        "said_separated": len(separated) / len(choices),
        "separated_and_right": float(np.mean([right for _, right in separated])) if separated else None,
    }


def select(
    curves: Curves,
    method: SelectionMethod,
    present: NDArray[np.int64],
    seed_order: NDArray[np.int64],
    *,
    grace_epochs: int,
    reduction_factor: float,
) -> SelectedConfig:
    """Return the configuration that `method` selects.

    Args:
        curves: the recording.
        method: the selection method.
        present: numbers of the configurations, in the order of their trials.
        seed_order: recorded seeds [configurations, seeds]: column 0 is the search run, the next ones are the
            confirmation runs.
        grace_epochs: first rung of the early stopping.
        reduction_factor: reduction factor of the early stopping.
    """
    epochs = curves.accuracy.shape[2]
    searched = [curves.accuracy[config, seed_order[place, 0]] for place, config in enumerate(present)]
    lengths = (
        stopped_after(searched, grace_epochs=grace_epochs, reduction_factor=reduction_factor)
        if method.stopping
        else [epochs] * len(present)
    )
    trials = [
        RankedTrial(
            trial_id=str(place),
            number=place,
            status=TrialStatus.FINISHED if length == epochs else TrialStatus.PRUNED,
            epoch=length,
            epochs=epochs,
            validation_accuracy=float(searched[place][length - 1]),
            validation_loss=None,
        )
        for place, length in enumerate(lengths)
    ]
    ranked = top_candidates(trials, method.candidates)
    spent = sum(lengths)
    if method.candidates == 1:
        place = int(ranked[0].trial_id)
        return SelectedConfig(
            config=int(present[place]), reported_accuracy=ranked[0].validation_accuracy or 0.0, epochs=spent
        )
    summaries = []
    for candidate in ranked:
        place = int(candidate.trial_id)
        runs = curves.accuracy[present[place], seed_order[place, 1 : 1 + method.seeds], -1]
        summaries.append(summarize(candidate.trial_id, runs.tolist()))
    champion = choose_champion(summaries)
    return SelectedConfig(
        config=int(present[int(champion.candidate)]),
        reported_accuracy=champion.summary.mean,
        epochs=spent + len(ranked) * method.seeds * epochs,
        separated=champion.separated,
    )


def stopped_after(
    curves: Sequence[NDArray[np.float64]], *, grace_epochs: int, reduction_factor: float
) -> list[int]:
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
    """Format the results as a table."""
    recorded = (
        f"{settings['configurations']} configurations x {settings['recorded_seeds']} seeds x "
        f"{settings['epochs']} epochs recorded; {settings['replays']} replays"
    )
    header = (
        f"{'method':32} {'best':>7} {'regret':>7} {'p95':>6} {'optimism':>9} {'epochs':>8} "
        f"{'cost':>6}  separated (of these correct)"
    )
    units = "regret, p95, optimism: percentage points"
    return "\n".join([record.describe(where), recorded, "", header, *map(_line, results), "", units])


def _line(row: Mapping[str, Any]) -> str:
    right = row["separated_and_right"]
    separated = f"{row['said_separated']:.0%}" + (f" ({right:.0%})" if right is not None else "")
    cost = row["epochs_mean"] / row["epochs_of_full_search"]
    return (
        f"{row['way']:32} {row['picked_the_best']:7.1%} {row['regret_points_mean']:7.2f} "
        f"{row['regret_points_p95']:6.2f} {row['optimism_points_mean']:+9.2f} {row['epochs_mean']:8.0f} "
        f"{cost:5.2f}x  {separated if row['seeds'] else '-'}"
    )


def _record(given: argparse.Namespace) -> None:
    from platform.space.space_files import load_space

    spec = load_space(given.space, overrides=given.set)
    print("loading PyTorch", file=sys.stderr)
    import torch

    from platform.data.catalog import prepare_dataset
    from platform.data.training_data import load_training_data
    from platform.space.spec import trial_seed
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(given.threads or usable_cores())
    info = prepare_dataset(spec.base.data, data_dir=given.data_dir)
    data, world = load_training_data(spec.base.data, info), single()

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        config = spec.resolve(params, seed=trial_seed(spec, seed * 1000 + number, stage="curves"))
        return fit(config, data, world=world, checkpoint_dir=None).epochs

    record_curves(
        given.curves,
        draw_configurations(spec, given.configurations),
        seeds=given.recorded_seeds,
        settings={
            "space": spec.name,
            "spec": spec.to_dict(),
            "data": info.label,
            "data_sha256": info.sha256,
            "device": world.device.type,
            "torch": str(torch.__version__),
        },
        train=train,
    )


if __name__ == "__main__":
    run_command(main)
