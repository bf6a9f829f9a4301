"""A run that goes on from another run's weights with other settings, for population based training."""

from __future__ import annotations

from pathlib import Path

from platform.errors import UserError
from platform.training.checkpoint import read_checkpoint, save_checkpoint
from platform.training.config import RunConfig


def inherit_checkpoint(source: Path, target: Path, *, config: RunConfig) -> None:
    """Give the run in `target` the state of the run in `source`, to go on from with `config`.

    Weights, their average, the optimiser's memory and the schedule's are the source's; the epochs that are
    told stay the target's own. Done twice, it comes out the same.

    Args:
        source: a folder with last.pt.
        target: another one, whose run has come as far; its last.pt is replaced.
        config: what the target's run is from now on; network and batch size are the source's.

    Raises:
        UserError: a checkpoint is missing or damaged, or the runs have not come equally far.
    """
    taken, own = read_checkpoint(source), read_checkpoint(target)
    state, before = taken["state"], own["state"]
    if len(state["records"]) != len(before["records"]):
        raise UserError(
            f"a run takes over from one that has come as far, and {source} holds {len(state['records'])} "
            f"epochs, {target} {len(before['records'])}; start a new sweep"
        )
    save_checkpoint(
        target,
        config=config,
        data_key=own["data_key"],
        state={**state, "records": before["records"]},
    )
