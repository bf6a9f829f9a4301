"""Extend a sweep by more trials, during or after its run.

No run is repeated: the sampler and the rungs continue, and confirmed candidates remain candidates with their
existing runs. If the same configuration wins again, the final model is kept. If another one wins, the old
model and its results move to `superseded/`, and the new model has to be evaluated on the test set. As this
is a further reading of the test set, it requires `--again`.
"""

from __future__ import annotations

from platform.common.atomic import write_text
from platform.common.errors import UsageError
from platform.common.schema import validate
from platform.space.spec import SweepSpec
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.journal.journal import open_journal, read_ledger
from platform.tuning.journal.ledger import Ledger
from platform.tuning.journal.trial import TrialTask
from platform.tuning.sampling.sampler import planned_trials
from platform.tuning.selection.test_set_record import RECORD_FILE

FINAL = "final"
SUPERSEDED = "superseded"
REGISTERED_FILE = "registered.json"


def extended_spec(spec: SweepSpec, more: int) -> SweepSpec:
    """Return the spec with `more` search trials.

    Raises:
        UsageError: `more` is below 1, or the grid has no further points.
    """
    if more < 1:
        raise UsageError(f"--extend must add at least 1 trial; got {more}")
    larger = validate(SweepSpec, {**spec.to_dict(), "trials": spec.trials + more}, source=spec.name)
    if planned_trials(larger) == planned_trials(spec):
        raise UsageError(f"--extend: all {planned_trials(spec)} points of the grid are already planned")
    return larger


def check_test_set_unread(folder: SweepFolder, *, again: bool) -> None:
    """Refuse to extend a sweep that has read the test set, unless `again` is set.

    Raises:
        UsageError: the test set was read, and `again` is not set.
    """
    if (folder.path / RECORD_FILE).exists() and not again:
        raise UsageError(
            f"--extend: {folder.sweep_id} has already read the test set; if another model wins, it must be "
            "evaluated on the test set too. Add --again to allow that (the report shows the number of "
            "evaluations)"
        )


def extend(folder: SweepFolder, spec: SweepSpec) -> None:
    """Write the larger spec into a sweep's folder.

    Raises:
        UserError: a process is running this sweep.
    """
    with open_journal(folder.journal) as journal:
        write_text(folder.spec, spec.to_yaml())
        journal.extended(f"{spec.trials} trials")


def candidate_numbers(ledger: Ledger) -> dict[str, int]:
    """Return the number of each candidate whose confirmation has started, by search trial, in order."""
    runs = [trial.task for trial in ledger.stage("confirm")]
    return {
        run.candidate: int(run.trial_id.partition("-")[0].removeprefix("c")) for run in runs if run.candidate
    }


def final_runs(folder: SweepFolder) -> list[TrialTask]:
    """Return the final runs, `final`, `final-2` and so on; the last one is that of the current model."""
    return [trial.task for trial in read_ledger(folder.journal).stage("final")]


def prepare_final_run(folder: SweepFolder, config: RunConfig) -> str:
    """Return the id of the final run of `config`, and move the results of another final model away.

    They are kept in `superseded/1`, `superseded/2` and so on.
    """
    runs = final_runs(folder)
    if not runs:
        return FINAL
    if runs[-1].run == config:
        return runs[-1].trial_id
    superseded = folder.path / SUPERSEDED / str(len(runs))
    for path in (
        folder.checkpoint_dir(FINAL),
        folder.test,
        folder.export,
        *folder.lower_precisions,
        folder.benchmark,
        folder.path / REGISTERED_FILE,
    ):
        if path.exists():
            superseded.mkdir(parents=True, exist_ok=True)
            path.rename(superseded / path.name)
    return f"{FINAL}-{len(runs) + 1}"
