"""Placement groups that outlived their job, freed.

A driver that dies while a trial waits for its workers leaves a placement group behind for the life of the
cluster: Ray Train's controller registers a new one after its job has ended, and nobody removes it. The next
sweep then waits for resources that nobody uses.
"""

from __future__ import annotations

from collections.abc import Callable

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


def left_over() -> list[str]:
    """Return the ids of all placement groups that still hold or wait for resources."""
    from ray.util.placement_group import placement_group_table

    return [group for group, state in placement_group_table().items() if state["state"] != "REMOVED"]


def _remove(unwanted: Callable[[str], bool]) -> list[str]:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    freed = [group for group in left_over() if unwanted(group[-_JOB_DIGITS:])]
    for group in freed:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
    return freed
