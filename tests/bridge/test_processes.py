"""The package works as `platform` in spawned processes, with `python -m`, and in a bare `pytest`."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import platform
from platform.common.errors import did_you_mean

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["root", "elsewhere"])
def test_a_spawned_process_imports_the_package_and_the_standard_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(ROOT))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(did_you_mean, ("optimzer", ["optimizer"])) == did_you_mean(
            "optimzer", ["optimizer"]
        )
        assert tuple(pool.apply(platform.uname)) == tuple(platform.uname())


@pytest.mark.parametrize("arguments", [[], ["--terse"], ["--nonaliased"], ["terse", "nonaliased"]])
def test_dash_m_platform_prints_what_the_standard_module_prints(arguments: list[str]) -> None:
    ours = run(sys.executable, "-m", "platform", *arguments)
    # -I -S: only the standard library is on the path, and start-up hooks do not run.
    standard = run(sys.executable, "-I", "-S", "-m", "platform", *arguments)
    assert standard.stdout.strip()
    assert (ours.returncode, ours.stdout) == (0, standard.stdout)


def test_bare_pytest_finds_the_package() -> None:
    executable = str(Path(sys.executable).with_name("pytest"))
    done = run(
        executable,
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/bridge/test_names.py",
        "-k",
        "no_submodule_is_named",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_tools_that_use_the_standard_module_run_in_the_project_folder() -> None:
    script = "import uuid, platform, asyncio, logging.handlers; uuid.uuid4(); print(platform.system())"
    done = run(sys.executable, "-W", "error", "-c", script)
    assert (done.returncode, done.stdout.strip()) == (0, platform.system()), done.stderr
