"""The command `python -m platform.report`: its output and its errors."""

import subprocess
import sys

from platform.tracking.sweep_folder import new_sweep_folder


def report(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "platform.report", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_the_newest_sweep_is_reported(tmp_path, pytestconfig):
    folder = new_sweep_folder(tmp_path, "resnet18_cifar")
    done = report("--runs", str(tmp_path), cwd=pytestconfig.rootpath)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder.report}\n", "")
    assert folder.report.is_file()


def test_an_unknown_sweep_is_one_message(tmp_path, pytestconfig):
    done = report("nothing", "--runs", str(tmp_path), cwd=pytestconfig.rootpath)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no sweep 'nothing'")
    assert done.stderr.count("\n") == 1


def test_a_wrong_option_is_a_usage_error(tmp_path, pytestconfig):
    done = report("--run", str(tmp_path), cwd=pytestconfig.rootpath)
    assert done.returncode == 2
    assert "--runs" in done.stderr
