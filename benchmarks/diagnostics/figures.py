"""Draw one recorded run of each fault, for docs/diagnostics.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.diagnostics.judge import CLASSES
from benchmarks.diagnostics.recording import RecordedRun
from platform.common.atomic import replacing
from platform.diagnose import CURVES
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import DESCRIPTIONS, Finding

_COLUMNS = 5


def write_figures(path: Path, runs: Sequence[RecordedRun]) -> None:
    """Write a PNG file with one panel per finding, from the last run with exactly this finding."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    examples = [found for name in DESCRIPTIONS if (found := _example(name, runs)) is not None]
    rows = math.ceil(len(examples) / _COLUMNS)
    figure = Figure(figsize=(2.7 * _COLUMNS, 2.1 * rows), layout="constrained")
    with rc_context({"font.size": 8}), replacing(path) as temporary:
        for number, (run, finding) in enumerate(examples):
            _draw(figure.add_subplot(rows, _COLUMNS, number + 1), run, finding)
        figure.savefig(temporary, format="png", dpi=90)


def _example(name: str, runs: Sequence[RecordedRun]) -> tuple[RecordedRun, Finding] | None:
    for run in reversed(runs):
        if run.fault != name or run.stopped:
            continue
        findings = diagnose(run.epochs, classes=CLASSES)
        if [finding.name for finding in findings] == [name]:
            return run, findings[0]
    return None


def _draw(axes: Any, run: RecordedRun, finding: Finding) -> None:
    """Draw the curves of a finding; the epochs from its first one on are shaded."""
    numbers = [record.epoch for record in run.epochs]
    positive: list[float] = []
    for field in CURVES[finding.name][:2]:
        if field in ("lr", "loss_spikes"):
            continue
        values = [getattr(record, field) for record in run.epochs]
        axes.plot(
            numbers, [math.nan if value is None else value for value in values], label=field.replace("_", " ")
        )
        positive += [value for value in values if value]
    if max(positive) > 100 * min(positive):
        axes.set_yscale("log")
    axes.axvspan(finding.epochs[0] - 0.5, numbers[-1] + 0.5, color="tab:red", alpha=0.08, linewidth=0)
    axes.set_title(finding.name, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
