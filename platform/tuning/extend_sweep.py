"""More trials for a sweep that has ended, or will: what changes in its folder, and what stays.

Nothing is repeated: the sampler and the rungs go on, confirmed candidates keep their runs and stay
candidates, and the final model stays the final model if its configuration wins again. If another one wins,
the old model and everything measured on it move to `superseded/`, and the test split would be opened a
second time: that needs `--again`, because whoever extends a sweep has seen the first figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from platform.atomic import write_text
from platform.errors import UsageError
from platform.schema import validate
from platform.space.space_files import SweepSpec
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.journal.journal import Event, open_journal, read_journal
from platform.tuning.journal.trial import TrialTask
from platform.tuning.sampling.sampler import planned_trials
from platform.tuning.selection.test_set_record import OPENED_FILE

FINAL = "final"
SUPERSEDED = "superseded"


def extended(spec: SweepSpec, more: int) -> SweepSpec:
    """Return the spec with `more` search trials.

    Raises:
        UsageError: there are no more points to try.
    """
    if more < 1:
        raise UsageError(f"--extend adds trials, at least 1; got {more}")
    larger = validate(SweepSpec, {**spec.to_dict(), "trials": spec.trials + more}, source=spec.name)
    if planned_trials(larger) == planned_trials(spec):
        raise UsageError(f"--extend: the grid has {planned_trials(spec)} points, and all are planned already")
    return larger


def refuse_second_opening(folder: SweepFolder, *, again: bool) -> None:
    """A sweep whose test figure is known is extended knowingly only.

    Raises:
        UsageError: the test split was opened, and `again` is not set.
    """
    if (folder.path / OPENED_FILE).exists() and not again:
        raise UsageError(
            f"--extend: {folder.sweep_id} has opened its test split; with more trials another model may win, "
            "and measuring it would be a second look at the test images. Add --again to allow that "
            "(the record of openings and the report will say so)"
        )


def extend(folder: SweepFolder, spec: SweepSpec) -> None:
    """Write the larger spec into a sweep's folder.

    Raises:
        UserError: a process runs this sweep.
    """
    with open_journal(folder.journal) as journal:
        write_text(folder.spec, spec.to_yaml())
        journal.extended(f"{spec.trials} trials")


def candidate_numbers(past: Iterable[Event]) -> dict[str, int]:
    """Return the number of each candidate whose confirmation has begun, by its search trial, in order."""
    numbers: dict[str, int] = {}
    for event in past:
        task = event.task
        if task is not None and task.stage == "confirm" and task.candidate is not None:
            numbers.setdefault(task.candidate, int(task.trial_id.split("-")[0].removeprefix("c")))
    return numbers


def final_run(folder: SweepFolder) -> str:
    """Return the id of the run that trained (or trains) the model that ships: `final`, later `final-2`."""
    runs = _final_runs(folder)
    return runs[-1].trial_id if runs else FINAL


def champion_of_final(folder: SweepFolder) -> str | None:
    """Return the search trial whose configuration that run has; None where there is no such run."""
    runs = _final_runs(folder)
    return runs[-1].candidate if runs else None


def final_run_for(folder: SweepFolder, config: RunConfig) -> str:
    """Return the id of the final run of `config`; another model's results give way to it.

    What was measured on the model before is kept in `superseded/`, numbered.
    """
    runs = _final_runs(folder)
    if not runs:
        return FINAL
    if runs[-1].run == config:
        return runs[-1].trial_id
    kept = folder.path / SUPERSEDED / str(len(runs))
    for path in (
        folder.checkpoint_dir(FINAL),
        folder.test,
        folder.export,
        *folder.lower_precisions,
        folder.benchmark,
        folder.path / "registered.json",
    ):
        _move(path, kept / path.name)
    return f"{FINAL}-{len(runs) + 1}"


def _final_runs(folder: SweepFolder) -> list[TrialTask]:
    past = read_journal(folder.journal)
    return [event.task for event in past if event.task is not None and event.task.stage == "final"]


def _move(path: Path, target: Path) -> None:
    if path.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
