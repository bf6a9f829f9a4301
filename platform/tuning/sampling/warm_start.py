"""Warm start: the finished trials of an earlier sweep, given to the sampler before its first trial.

They are copied into the new sweep's folder at its start, so a resumed search uses the same trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from platform.common.atomic import read_json, write_text
from platform.common.errors import UsageError
from platform.common.schema import Frozen, validate
from platform.space.distributions import Scalar
from platform.space.settings import Grid, Qmc, Random
from platform.space.space_files import load_spec
from platform.space.spec import SweepSpec, changed_fields
from platform.tracking.parquet_tables import read_trials
from platform.tracking.sweep_folder import SweepFolder

FILE = "warm_start.json"


class EarlierTrial(Frozen):
    """A finished trial of another sweep."""

    trial_id: str
    params: Mapping[str, Scalar]
    accuracy: float
    """Validation accuracy, 0..1."""


class EarlierTrials(Frozen):
    """The content of warm_start.json."""

    sweep: str
    trials: tuple[EarlierTrial, ...]


def earlier_trials(source: SweepFolder, spec: SweepSpec) -> EarlierTrials:
    """Return the finished trials of `source` that lie in the space of `spec`.

    Raises:
        UsageError: the sampler does not use earlier trials, the sweeps' accuracies cannot be compared, or no
            trial lies in the space.
        UserError: the sweep's files are damaged.
    """
    if isinstance(spec.sampler, Random | Qmc | Grid):
        raise UsageError(
            f"--warm-start needs a sampler that uses earlier trials, and {spec.sampler.name!r} does not: "
            "use sampler.name=tpe"
        )
    before = load_spec(source.path)
    comparable = ("base.data", "base.epochs", "base.iterations")
    differ = [name for name in changed_fields(before, spec) if name.startswith(comparable)]
    if differ:
        raise UsageError(
            f"--warm-start compares accuracies, so data and length must be the same, but {source.sweep_id} "
            f"differs in {', '.join(differ)}"
        )
    whole = [
        EarlierTrial(trial_id=row.trial_id, params=row.params, accuracy=row.validation_accuracy)
        for row in read_trials(source)
        if row.stage == "search" and row.completed and row.validation_accuracy is not None
    ]
    fitting: list[EarlierTrial] = []
    for trial in whole:
        with suppress(UsageError):
            spec.resolve(trial.params)
            fitting.append(trial)
    if not fitting:
        raise UsageError(
            f"--warm-start: none of the {len(whole)} finished trials of {source.sweep_id} lies in this space"
        )
    return EarlierTrials(sweep=source.sweep_id, trials=tuple(fitting))


def write_earlier_trials(folder: SweepFolder, earlier: EarlierTrials) -> None:
    """Write earlier trials into the new sweep's folder."""
    write_text(folder.path / FILE, earlier.model_dump_json(indent=2) + "\n")


def read_earlier_trials(folder: SweepFolder) -> tuple[EarlierTrial, ...]:
    """Return the earlier trials of a sweep; none if it had no warm start.

    Raises:
        UserError: the file is damaged.
    """
    path = folder.path / FILE
    if not path.exists():
        return ()
    content = read_json(path, remedy="restore it from a copy")
    return validate(EarlierTrials, content, source=str(path)).trials
