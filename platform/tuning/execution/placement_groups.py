"""Placement groups that outlived those who used them, freed.

A driver that dies while a trial waits for its workers leaves a placement group behind for the life of the
cluster: Ray Train's controller registers a new one after its job has ended, and nobody removes it. The next
sweep then waits for resources that nobody uses. And a trial's own process that is killed takes its controller
along, but not the group of its workers: Ray keeps that until the whole job ends.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

_JOB_DIGITS = 8  # a placement group's id ends in the id of the job that made it


def free_dead_jobs() -> list[str]:
    """Remove the placement groups of jobs that have ended; return their ids."""
    from ray._private.state import jobs

    all_jobs = jobs()  # type: ignore[no-untyped-call]
    living = {job["JobID"] for job in all_jobs if not job["IsDead"]}
    return _remove(lambda job: job not in living)


def free_own_job() -> list[str]:
    """Remove all placement groups of this driver's job; return their ids."""
    import ray

    own = ray.get_runtime_context().get_job_id()
    return _remove(lambda job: job == own)


def free_of_dead_trials() -> list[str]:
    """Remove the placement groups of this job that were made by a process that has died; return their ids."""
    import ray
    from ray._private import state
    from ray.core.generated import gcs_pb2

    # The only place where Ray tells who made a group.
    message: Any = getattr(gcs_pb2, "PlacementGroupTableData")  # noqa: B009 - its types are made at run time
    own = ray.get_runtime_context().get_job_id()
    accessor: Any = state.state._connect_and_get_accessor()
    table = map(message.FromString, accessor.get_placement_group_table())
    # What the driver made, Tune's groups, counts as made by a dead actor, but names none.
    orphans = {
        group.placement_group_id.hex()
        for group in table
        if group.creator_actor_dead and group.creator_actor_id.strip(b"\xff")
    }
    return _remove(lambda job: job == own, among=orphans)


def left_over() -> list[str]:
    """Return the ids of all placement groups that still hold or wait for resources."""
    from ray.util.placement_group import placement_group_table

    return [group for group, state in placement_group_table().items() if state["state"] != "REMOVED"]


def _remove(unwanted: Callable[[str], bool], *, among: Container[str] | None = None) -> list[str]:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    freed = [
        group for group in left_over() if unwanted(group[-_JOB_DIGITS:]) and (among is None or group in among)
    ]
    for group in freed:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
    return freed
