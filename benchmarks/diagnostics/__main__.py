"""Measure how often the diagnostics are right, on recorded runs with planted faults.

    python -m benchmarks.diagnostics                # recall, false alarms and confusion on the unseen half
    python -m benchmarks.diagnostics --half fitted  # on the half on which the thresholds were fitted
    python -m benchmarks.diagnostics --fit          # fits the thresholds of the rules
    python -m benchmarks.diagnostics --figures docs/images/diagnostics.png
    python -m benchmarks.diagnostics --record       # trains the missing runs; can be stopped and resumed

The runs are real trainings of small networks on 16x16 CIFAR-10 images by the trainer of this project, with a
fault planted in each (`gallery.py`, `plants.py`). `found` counts the runs whose findings contain the fault,
`alone` those with no other finding. Recording takes about 25 minutes of one CPU core and needs CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import record
from benchmarks.command import Parser, one_of, say
from benchmarks.diagnostics.gallery import HEALTHY, planned_runs
from benchmarks.diagnostics.judge import (
    FALSE_ALARMS_TARGET,
    NOTHING,
    OTHER_TARGET,
    TARGETS,
    EarlyStops,
    Score,
    early_stops,
    fit_thresholds,
    half_of,
    scores,
)
from benchmarks.diagnostics.recording import GALLERY, read_gallery, record_gallery
from platform.common.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the gallery, fit the thresholds, or print the scores and write the record."""
    given = _parser().parse(arguments)
    if given.record:
        _record(given.gallery)
        return 0
    runs = read_gallery(given.gallery)
    if given.fit:
        for name, value, low, high in fit_thresholds(half_of(runs, "fitted")):
            print(f"{name:20} {value:<8g} (equally good from {low:.3g} to {high:.3g})")
        return 0
    if given.figures:
        from benchmarks.diagnostics.figures import write_figures

        write_figures(given.figures, runs)
        return 0
    where = record.context()
    chosen = half_of(runs, given.half)
    results, early = scores(chosen), early_stops(chosen)
    print(table(results, early, given.half))
    if given.json:
        settings = {"half": given.half, "gallery": str(given.gallery), "runs": len(runs)}
        rows = [{**vars(score), "recall": score.recall, "target": _target(score.fault)} for score in results]
        rows.append({"early_stopping": [vars(each) for each in early]})
        record.write(given.json, record.document("diagnostics", where, settings, rows))
    return 0


def _parser() -> Parser:
    parser = Parser("diagnostics", "Measure recall and false alarms of the diagnostics.")
    add = parser.add_argument
    add("--record", action="store_true", help="train the missing runs of the gallery")
    add("--fit", action="store_true", help="fit the thresholds on one half, and print them")
    add("--figures", type=Path, metavar="FILE", help="draw one run of each fault to this PNG file")
    add(
        "--half",
        type=one_of(("unseen", "fitted")),
        default="unseen",
        metavar="H",
        help="unseen (default) or fitted: the half whose runs are judged",
    )
    add("--gallery", type=Path, default=GALLERY, metavar="FILE", help="default: benchmarks/data")
    return parser


def _record(path: Path) -> None:
    import torch

    torch.set_num_threads(1)
    record_gallery(path, planned_runs(), say=say)


def _target(fault: str) -> float:
    return 1 - FALSE_ALARMS_TARGET if fault == HEALTHY else TARGETS.get(fault, OTHER_TARGET)


def table(results: Sequence[Score], early: Sequence[EarlyStops], half: str) -> str:
    """Format the scores: one line per fault, the false alarms, and the faults that a sweep ends early."""
    lines = [
        f"{half} half",
        f"{'fault':24} {'runs':>5} {'found':>6} {'target':>7} {'alone':>6}  other findings",
    ]
    for score in results:
        if not score.runs:
            continue
        own = NOTHING if score.fault == HEALTHY else score.fault
        others = ", ".join(f"{name} {count}" for name, count in sorted(score.named.items()) if name != own)
        lines.append(
            f"{score.fault:24} {score.runs:5} {score.recall:6.0%} {_target(score.fault):7.0%} "
            f"{score.alone / score.runs:6.0%}  {others}"
        )
    healthy = results[0]
    lines += ["", f"false alarms: {healthy.runs - healthy.found} of {healthy.runs} healthy runs"]
    lines += ["", f"{'ended early in a sweep':24} {'runs':>5} {'ended':>6} {'saved':>7}"]
    lines += [
        f"{each.fault:24} {each.runs:5} {each.ended:6} {each.saved:7.0%}"
        for each in early
        if each.ended or each.fault == HEALTHY
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
