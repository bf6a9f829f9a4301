"""How often a way of choosing picks the truly best configuration, and what it costs: a replay study.

    python -m benchmarks.selection                    # replays benchmarks/data/curves.parquet
    python -m benchmarks.selection --record           # trains what that file lacks; stop and go on at will

Each replay gives every configuration one of its recorded seeds as its search run, at random and in random
order, and lets each way choose. `protocol` is the sweep's own code: its early stopping (ASHA, one slot), its
`top_candidates`, `summarize` and `choose_champion`, with fresh seeds for the confirmation. The truth is each
configuration's mean over all recorded seeds, so it is itself known to within its standard error, and shares
runs with what is judged: differences between the ways matter more than their levels.
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
from platform.cores import usable_cores
from platform.errors import UsageError, run_command
from platform.tracking.events import TrialStatus
from platform.training.records import EpochRecord
from platform.tuning.selection.champion import RankedTrial, choose_champion, summarize, top_candidates

CURVES = Path(__file__).parent / "data" / "curves.parquet"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one way chose in one replay."""

    config: int
    told: float
    """The validation accuracy, 0..1, that it would have reported."""
    epochs: int
    """Epochs it trained."""
    separated: bool | None = None
    """Whether it said that the winner is better than the second."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of choosing: how trials are stopped, and how the best of them are confirmed."""

    name: str
    stopping: bool
    candidates: int
    """1: the best single run wins."""
    seeds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Record, or replay, print the table and write the record."""
    given = _parser().parse(arguments)
    if given.record:
        _record(given)
        return 0
    curves = read_curves(given.curves)
    ways = [
        Way(name="best single run", stopping=False, candidates=1, seeds=0),
        Way(name="best single run, early stopping", stopping=True, candidates=1, seeds=0),
        Way(
            name="protocol without early stopping",
            stopping=False,
            candidates=given.candidates,
            seeds=given.seeds,
        ),
        Way(name="protocol", stopping=True, candidates=given.candidates, seeds=given.seeds),
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
    results = [study(curves, way, given) for way in ways]
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("selection", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser("selection", "How often a way of choosing picks the truly best configuration.")
    add = parser.add_argument
    add("--curves", type=Path, default=CURVES, metavar="FILE", help="default: benchmarks/data/curves.parquet")
    add("--replays", type=at_least(1), default=2000, metavar="N", help="default: 2000")
    add("--configurations-per-replay", type=at_least(2), metavar="N", help="default: all recorded ones")
    add("--candidates", type=at_least(1), default=3, metavar="N", help="default: 3")
    add("--seeds", type=at_least(1), default=3, metavar="N", help="runs of each candidate; default: 3")
    add("--grace-epochs", type=at_least(1), default=2, metavar="N", help="first rung; default: 2")
    add("--reduction-factor", type=float, default=3.0, metavar="X", help="default: 3")
    add("--record", action="store_true", help="train what the file lacks instead")
    add("--space", default="resnet32_cifar", help="--record: what configurations are drawn from")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", help="--record: settings of the space to change")
    add("--configurations", type=at_least(2), default=16, metavar="N", help="--record: default 16")
    add("--recorded-seeds", type=at_least(2), default=8, metavar="N", help="--record: default 8")
    add("--threads", type=at_least(1), metavar="N", help="--record: on the CPU; default: cores")
    add("--data-dir", type=Path, metavar="DIR", help="--record: where the images are")
    return parser


def study(curves: Curves, way: Way, given: argparse.Namespace) -> dict[str, Any]:
    """Replay `way` and return its row of the record. Every way meets the same luck."""
    draws = np.random.default_rng(0)
    truth, epochs = curves.truth, curves.accuracy.shape[2]
    count = min(given.configurations_per_replay or len(truth), len(truth))
    choices, best = [], []
    for _ in range(given.replays):
        present = draws.permutation(len(truth))[:count]
        luck = np.array([draws.permutation(curves.accuracy.shape[1]) for _ in present])
        best.append(present[np.argmax(truth[present])])
        choices.append(
            choose(
                curves,
                way,
                present,
                luck,
                grace_epochs=given.grace_epochs,
                reduction_factor=given.reduction_factor,
            )
        )
    chosen = np.array([choice.config for choice in choices])
    regret = truth[np.array(best)] - truth[chosen]
    spent = np.array([choice.epochs for choice in choices])
    sure = [
        (choice, right)
        for choice, right in zip(choices, chosen == np.array(best), strict=True)
        if choice.separated
    ]
    return {
        "way": way.name,
        "candidates": way.candidates,
        "seeds": way.seeds,
        "picked_the_best": float(np.mean(chosen == np.array(best))),
        "regret_points_mean": float(100 * regret.mean()),
        "regret_points_p95": float(100 * np.quantile(regret, 0.95)),
        "optimism_points_mean": float(100 * np.mean([c.told for c in choices] - truth[chosen])),
        "epochs_mean": float(spent.mean()),
        "epochs_of_full_search": float(count * epochs),
        "said_separated": len(sure) / len(choices),
        "separated_and_right": float(np.mean([right for _, right in sure])) if sure else None,
    }


def choose(
    curves: Curves,
    way: Way,
    present: NDArray[np.int64],
    luck: NDArray[np.int64],
    *,
    grace_epochs: int,
    reduction_factor: float,
) -> Choice:
    """Return what `way` chooses.

    Args:
        curves: the recording.
        way: how to choose.
        present: numbers of the configurations, in the order in which they are tried.
        luck: [configurations, seeds]: which recorded seed is each one's search run (column 0), and which
            are its confirmation's.
        grace_epochs: of the early stopping.
        reduction_factor: of the early stopping.
    """
    epochs = curves.accuracy.shape[2]
    searched = [curves.accuracy[config, luck[place, 0]] for place, config in enumerate(present)]
    lengths = (
        stopped_after(searched, grace_epochs=grace_epochs, reduction_factor=reduction_factor)
        if way.stopping
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
    ranked = top_candidates(trials, way.candidates)
    spent = sum(lengths)
    if way.candidates == 1:
        place = int(ranked[0].trial_id)
        return Choice(config=int(present[place]), told=ranked[0].validation_accuracy or 0.0, epochs=spent)
    summaries = []
    for candidate in ranked:
        place = int(candidate.trial_id)
        runs = curves.accuracy[present[place], luck[place, 1 : 1 + way.seeds], -1]
        summaries.append(summarize(candidate.trial_id, runs.tolist()))
    champion = choose_champion(summaries)
    return Choice(
        config=int(present[int(champion.candidate)]),
        told=champion.summary.mean,
        epochs=spent + len(ranked) * way.seeds * epochs,
        separated=champion.separated,
    )


def stopped_after(
    curves: Sequence[NDArray[np.float64]], *, grace_epochs: int, reduction_factor: float
) -> list[int]:
    """Return the epochs that each curve is trained for, one after another, by the sweep's own scheduler."""
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
    """Return the table for people."""
    recorded = (
        f"{settings['configurations']} configurations x {settings['recorded_seeds']} seeds x "
        f"{settings['epochs']} epochs recorded; {settings['replays']} replays"
    )
    header = (
        f"{'way of choosing':32} {'best':>7} {'regret':>7} {'p95':>6} {'optimism':>9} {'epochs':>8} "
        f"{'cost':>6}  said separated (of these right)"
    )
    units = "regret, p95, optimism: percentage points"
    return "\n".join([record.describe(where), recorded, "", header, *map(_line, results), "", units])


def _line(row: Mapping[str, Any]) -> str:
    right = row["separated_and_right"]
    sure = f"{row['said_separated']:.0%}" + (f" ({right:.0%})" if right is not None else "")
    cost = row["epochs_mean"] / row["epochs_of_full_search"]
    return (
        f"{row['way']:32} {row['picked_the_best']:7.1%} {row['regret_points_mean']:7.2f} "
        f"{row['regret_points_p95']:6.2f} {row['optimism_points_mean']:+9.2f} {row['epochs_mean']:8.0f} "
        f"{cost:5.2f}x  {sure if row['seeds'] else '-'}"
    )


def _record(given: argparse.Namespace) -> None:
    from platform.space.space_files import load_space

    spec = load_space(given.space, overrides=given.set)
    print("loading PyTorch", file=sys.stderr)
    import torch

    from platform.data.catalog import prepare
    from platform.data.training_data import load_training_data
    from platform.space.spec import trial_seed
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(given.threads or usable_cores())
    info = prepare(spec.base.data, data_dir=given.data_dir)
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
