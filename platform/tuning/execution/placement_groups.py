"""Remove Ray placement groups whose owner is dead.

If a driver dies while a trial waits for its workers, Ray Train's controller registers a new placement group
after the driver's job has ended. Ray never removes that group, so the next sweep waits for its resources.
If a trial's own process is killed, Ray ends its controller, but keeps the workers' placement group until the
whole job ends.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

_JOB_DIGITS = 8  # a placement group's id ends in the id of the job that created it


def remove_groups_of_ended_jobs() -> None:
    """Remove the placement groups of jobs that have ended."""
    from ray._private.state import jobs

    all_jobs = jobs()  # type: ignore[no-untyped-call]
    running = {job["JobID"] for job in all_jobs if not job["IsDead"]}
    _remove(lambda job: job not in running)


def remove_groups_of_this_job() -> None:
    """Remove all placement groups of this driver's job."""
    import ray

    own = ray.get_runtime_context().get_job_id()
    _remove(lambda job: job == own)


def remove_groups_of_dead_trials() -> None:
    """Remove the placement groups of this job whose creator process has died."""
    import ray
    from ray._private import state
    from ray.core.generated import gcs_pb2

    # Only this table has the creator of a group.
    message: Any = getattr(gcs_pb2, "PlacementGroupTableData")  # noqa: B009 - its types are made at run time
    own = ray.get_runtime_context().get_job_id()
    accessor: Any = state.state._connect_and_get_accessor()
    table = map(message.FromString, accessor.get_placement_group_table())
    # Groups created by the driver (Tune's) are marked as created by a dead actor, but have no actor id.
    orphans = {
        group.placement_group_id.hex()
        for group in table
        if group.creator_actor_dead and group.creator_actor_id.strip(b"\xff")
    }
    _remove(lambda job: job == own, among=orphans)


def active_groups() -> list[str]:
    """Return the ids of all placement groups that hold resources or wait for them."""
    from ray.util.placement_group import placement_group_table

    return [group for group, state in placement_group_table().items() if state["state"] != "REMOVED"]


def _remove(matches_job: Callable[[str], bool], *, among: Container[str] | None = None) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for group in active_groups():
        if matches_job(group[-_JOB_DIGITS:]) and (among is None or group in among):
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
