"""The environment of Ray's workers."""

import pytest

from platform.tuning.execution.cluster_session import worker_environment


def test_workers_have_normal_priority_unless_the_user_sets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_worker_niceness")
    assert worker_environment()["RAY_worker_niceness"] == "0"
    monkeypatch.setenv("RAY_worker_niceness", "10")
    assert worker_environment()["RAY_worker_niceness"] == "10"
