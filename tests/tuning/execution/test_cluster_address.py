"""Addresses in RAY_ADDRESS at which no cluster answers."""

from __future__ import annotations

import gc
import socket
import tempfile
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import ray
from ray._private import services

from platform.common.errors import UserError
from platform.tuning.execution import cluster_session
from platform.tuning.execution.cluster_session import session


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never answers, such as that of a suspended process."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1:{silent}", "127.0.0.1:1", "no-such-host.invalid:6379", "nonsense", "auto"]
)
def test_a_cluster_that_does_not_answer_is_one_message(
    silent_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scheme: str,
    host: str,
) -> None:
    address = scheme + host.format(silent=silent_port)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(cluster_session, "_ANSWER_TIMEOUT_S", 1.0)
    # `auto` would find the sweeps of tests in other processes.
    monkeypatch.setattr(services, "find_gcs_addresses", cache(set))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(UserError) as caught, session():
        pass
    message = str(caught.value)
    assert message.startswith(f"cannot reach the Ray cluster at RAY_ADDRESS={address}: ")
    assert message.endswith("or unset RAY_ADDRESS to use only this machine")
    assert "\n" not in message
    assert capfd.readouterr().err == ""


def test_a_temporary_folder_that_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(UserError, match=f"set TMPDIR to a shorter path than {folder}"), session():
        pass


def test_no_garbage_is_collected_while_ray_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    class Node:
        """Part of a reference cycle, as Tune's trials with their actor handles."""

        def __init__(self) -> None:
            self.itself = self

    garbage = weakref.ref(Node())
    collected_and_disabled = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster_session, "_start", lambda *_, **__: None)
    monkeypatch.setattr(cluster_session, "_nodes", lambda **_: [])
    monkeypatch.setattr(
        ray, "shutdown", lambda: collected_and_disabled.append((garbage() is None, not gc.isenabled()))
    )
    with session():
        pass
    assert collected_and_disabled == [(True, True)]
    assert gc.isenabled()
