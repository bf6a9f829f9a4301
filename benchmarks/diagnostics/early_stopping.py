"""Measure which recorded runs a sweep would have ended early, and how much of them it would have saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.diagnostics.judge import CLASSES
from benchmarks.diagnostics.recording import RecordedRun
from platform.tuning.stop_criteria import hopeless


@dataclass(frozen=True, kw_only=True)
class EarlyStops:
    """The runs with one fault that a sweep would have ended early."""

    fault: str
    runs: int
    """Runs that the trainer itself did not end."""
    ended: int
    saved: float
    """Part of the epochs of all runs that were not needed, 0..1."""


def measure(runs: Sequence[RecordedRun]) -> list[EarlyStops]:
    """Return one entry per fault, in the order of the runs."""
    faults = list(dict.fromkeys(run.fault for run in runs))
    return [
        _of_fault(fault, [run for run in runs if run.fault == fault and not run.stopped]) for fault in faults
    ]


def _of_fault(fault: str, runs: Sequence[RecordedRun]) -> EarlyStops:
    last = [_last_epoch(run) for run in runs]
    planned = sum(len(run.epochs) for run in runs)
    return EarlyStops(
        fault=fault,
        runs=len(runs),
        ended=sum(epoch < len(run.epochs) for epoch, run in zip(last, runs, strict=True)),
        saved=1 - sum(last) / planned if planned else 0.0,
    )


def _last_epoch(run: RecordedRun) -> int:
    """Return the epoch after which a sweep would end the run."""
    for count in range(1, len(run.epochs)):
        if hopeless(run.epochs[:count], classes=CLASSES) is not None:
            return count
    return len(run.epochs)


def table(results: Sequence[EarlyStops]) -> str:
    """Format the results, without faults whose runs all continue."""
    lines = ["", f"{'ended early in a sweep':24} {'runs':>5} {'ended':>6} {'saved':>7}"]
    lines += [
        f"{each.fault:24} {each.runs:5} {each.ended:6} {each.saved:7.0%}"
        for each in results
        if each.ended or each.fault == "healthy"
    ]
    return "\n".join(lines)
