"""Diagnose a run from its learning curves: what went wrong, since when, why, and what to try.

    python -m platform.diagnose runs/train-resnet32_cifar-20260101-120000
    python -m platform.diagnose resnet32_cifar-20260101-120000 t007      # a trial of a sweep; without: all
    python -m platform.diagnose losses.csv --classes 100                 # columns: see docs/diagnostics.md
    python -m platform.diagnose 0123456789abcdef0123456789abcdef --tracking-uri http://mlflow:5000

`--set` options are for the configuration of the run. A CSV file and a run in MLflow of another program have
fewer curves, so fewer findings are possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from platform.common.command_line import option, parse_command_line
from platform.common.errors import UsageError, UserError, run_command
from platform.common.text_format import plural
from platform.training.config import RunConfig
from platform.training.diagnostics.curve_table import read_csv, records_from
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.findings import Finding, Phenomenon
from platform.training.diagnostics.remedies import remedies
from platform.training.records import EpochRecord
from platform.training.run_folder import METRICS, RECORD, RUN, read_request

if TYPE_CHECKING:
    from platform.tracking.sweep_folder import SweepFolder

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_CLASSES = {"cifar10": 10, "generated": 10}
_WIDTH = 60
_BARS = "▁▂▃▄▅▆▇█"
CURVES: Mapping[Phenomenon, tuple[str, ...]] = {
    "divergence": ("train_loss", "lr"),
    "exploding gradients": ("grad_norm",),
    "vanishing gradients": ("first_grad_norm", "last_grad_norm"),
    "ReLU on the output": ("zero_logits",),
    "learning rate too high": ("weight_scale",),
    "random labels": ("train_accuracy", "validation_accuracy"),
    "dead units": ("dead_units",),
    "loss of plasticity": ("train_accuracy",),
    "periodicity": ("train_loss", "lr"),
    "overfitting": ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"),
    "generalization gap": ("train_accuracy", "validation_accuracy"),
    "loss spikes": ("train_loss", "loss_spikes"),
    "underfitting": ("train_loss", "validation_loss"),
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Diagnose a run from its learning curves."""

    run: Annotated[str, tyro.conf.Positional, option("RUN")]
    """Folder of a run or a sweep, id of a sweep, CSV file, or id of a run in MLflow."""
    trial: Annotated[str | None, tyro.conf.Positional, option("[TRIAL]", default="all")] = None
    """Trial of the sweep."""
    classes: Annotated[int | None, option("N", default="those of the dataset, else 10")] = None
    """Number of classes."""
    tracking_uri: Annotated[str | None, option("URI", default="$MLFLOW_TRACKING_URI, else ./mlflow.db")] = (
        None
    )
    """MLflow store of the run id."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The learning curves of one run."""

    name: str
    records: Sequence[EpochRecord]
    classes: int | None = None
    """None if unknown."""
    config: RunConfig | None = None
    """None if unknown: no settings can be suggested."""
    stopped: bool = False
    """Whether the trainer ended the run because a value was not finite."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.diagnose") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    for number, curves in enumerate(_read(arguments)):
        classes = arguments.classes or curves.classes or 10
        findings = diagnose(curves.records, classes=classes, stopped=curves.stopped)
        print(("\n" if number else "") + report(curves, findings))
    return 0


def report(curves: Curves, findings: Sequence[Finding]) -> str:
    """Return the findings of a run as text."""
    length = plural(len(curves.records), "epoch")
    if not findings:
        return f"{curves.name}: no findings in {length}"
    return "\n".join(
        [f"{curves.name}: {plural(len(findings), 'finding')} in {length}"]
        + [line for finding in findings for line in ("", *_finding_lines(finding, curves))]
    )


def _finding_lines(finding: Finding, curves: Curves) -> list[str]:
    lines = [
        f"{finding.title} ({finding.severity}), from epoch {finding.epochs[0]}",
        f"  evidence: {finding.evidence}",
    ]
    for field in CURVES[finding.name]:
        values = [getattr(record, field) for record in curves.records]
        numbers = [math.nan if value is None else float(value) for value in values]
        finite = [value for value in numbers if math.isfinite(value)]
        if finite:
            lines.append(f"  {field:19} {sparkline(numbers)} {finite[0]:.3g} to {finite[-1]:.3g}")
    lines += [f"  why: {finding.cause}", f"  try: {finding.advice}"]
    if curves.config is not None and (options := remedies(finding, curves.config, curves.records)):
        quoted = [f"'{option}'" if "{" in option else option for option in options]
        lines.append(f"       --set {' '.join(quoted)}")
    return lines


def sparkline(values: Sequence[float]) -> str:
    """Return a curve as one line of bars, at most 60; each shows the largest of its values.

    A curve that spans more than two decades is drawn on a log scale. Values that are not finite are blank.
    """
    width = min(_WIDTH, len(values))
    edges = [number * len(values) // width for number in range(width + 1)] if width else [0]
    heights = []
    for a, b in pairwise(edges):
        finite = [value for value in values[a:b] if math.isfinite(value)]
        heights.append(max(finite) if finite else math.nan)
    finite = [height for height in heights if math.isfinite(height)]
    if not finite:
        return " " * width
    if min(finite) > 0 and max(finite) > 100 * min(finite):
        heights = [math.log(height) if math.isfinite(height) else height for height in heights]
        finite = [height for height in heights if math.isfinite(height)]
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        _BARS[round((len(_BARS) - 1) * (height - low) / span) if span else 0]
        if math.isfinite(height)
        else " "
        for height in heights
    )


def _read(arguments: Arguments) -> list[Curves]:
    """Return the curves that the arguments name.

    Raises:
        UserError: there are none.
    """
    path = Path(arguments.run)
    if path.is_dir() and (path / RUN).is_file():
        found = [_of_folder(path)]
    elif path.is_file():
        found = [Curves(name=path.name, records=read_csv(path))]
    elif _RUN_ID.fullmatch(arguments.run) and not path.exists():
        found = [_of_mlflow(arguments.run, arguments.tracking_uri)]
    else:
        from platform.tracking.sweep_folder import find_sweep

        return _of_sweep(find_sweep(arguments.run, root=Path("runs")), arguments.trial)
    if arguments.trial is not None:
        raise UsageError(
            f"TRIAL is for sweeps, and {arguments.run} is not one: leave out {arguments.trial!r}"
        )
    return found


def _of_folder(folder: Path) -> Curves:
    from platform.common.atomic import read_json

    config = read_request(folder).config
    if not (folder / METRICS).is_file():
        raise UserError(f"{folder} has no {METRICS}: the run has not finished an epoch")
    data: Mapping[str, Any] = {}
    if (folder / RECORD).is_file():
        data = read_json(folder / RECORD, remedy="restore it from a copy")["data"]
    records = read_csv(folder / METRICS)
    # The run may not be complete.
    epochs = config.epochs or records[-1].epoch
    return Curves(
        name=folder.name,
        records=[replace(record, epochs=epochs) for record in records],
        classes=data.get("classes") or _CLASSES.get(config.data.name),
        config=config,
    )


def _of_sweep(folder: SweepFolder, trial: str | None) -> list[Curves]:
    from platform.tracking.results import read_results
    from platform.tracking.trial_findings import has_diverged, number_of_classes

    results = read_results(folder)
    rows = [row for row in results.trials if trial is None or row.trial_id == trial]
    if not rows:
        known = ", ".join(row.trial_id for row in results.trials) or "none yet"
        raise UsageError(f"{folder.sweep_id} has no trial {trial!r}; its trials are: {known}")
    return [
        Curves(
            name=f"{folder.sweep_id} {row.trial_id}",
            records=results.epochs.get(row.trial_id, ()),
            classes=number_of_classes(results) or _CLASSES.get(row.run_config().data.name),
            config=row.run_config(),
            stopped=has_diverged(row),
        )
        for row in rows
    ]


def _of_mlflow(run_id: str, tracking_uri: str | None) -> Curves:
    from mlflow.exceptions import MlflowException

    from platform.tracking.mlflow_store import open_store, resolve_tracking_uri

    uri = resolve_tracking_uri(tracking_uri)
    database = uri.removeprefix("sqlite:///")
    if database != uri and not Path(database).is_file():
        raise UserError(f"there is no MLflow database {database}; give the run's store with --tracking-uri")
    client = open_store(uri)
    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise UserError(f"no run {run_id} in {uri}; give its store with --tracking-uri") from None
    by_step: dict[str, dict[int, float]] = {
        key: {metric.step: metric.value for metric in client.get_metric_history(run_id, key)}
        for key in run.data.metrics
    }
    steps = sorted({step for values in by_step.values() for step in values})
    columns = {key: [values.get(step) for step in steps] for key, values in by_step.items()}
    return Curves(name=run.info.run_name or run_id, records=records_from(columns, f"the run {run_id}"))


if __name__ == "__main__":
    run_command(main)
