"""The environment of Ray's workers."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from platform.tuning.execution.cluster_session import project_root, worker_environment

SESSION = """
import sys
import ray
from platform.tuning.execution.cluster_session import session

with session(num_cpus=1):
    with_environment = ray.remote(runtime_env={"env_vars": {"A": "1"}})  # as Tune starts trials
    print(ray.get(with_environment(lambda: sys.executable).remote()))
"""


def test_workers_have_normal_priority_unless_the_user_sets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_worker_niceness")
    assert worker_environment()["RAY_worker_niceness"] == "0"
    monkeypatch.setenv("RAY_worker_niceness", "10")
    assert worker_environment()["RAY_worker_niceness"] == "10"


def test_workers_start_from_a_path_with_a_space(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "a space")], check=True)
    packages = next((tmp_path / "a space" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(tmp_path / "a space" / "bin" / "python")
    done = subprocess.run(
        [python, "-c", SESSION],
        env={**os.environ, "PYTHONPATH": str(project_root())},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout == f"{python}\n", done.stderr
