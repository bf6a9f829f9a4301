"""Provenance: the git state, the hardware text and the imports."""

import json
import subprocess
import sys

import pytest

from platform.tracking import provenance
from platform.tracking.provenance import collect, command_line, git_state


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_git_state_is_the_commit_and_whether_tracked_files_differ(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert git_state(tmp_path) == (commit, False)
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == (commit, True)


def test_a_folder_inside_another_checkout_has_no_commit(tmp_path):
    git(tmp_path, "init", "-q")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_state(inside) == (None, None)


def test_the_provenance_is_json_with_versions_and_hardware():
    origin = collect()
    record = json.loads(json.dumps(origin.as_dict()))
    assert record["command"] == command_line()
    assert {"torch", "ray", "mlflow", "ncnn"} <= set(record["versions"])
    assert record["cores"] >= 1
    assert 0 < record["memory_gib"] < 1e5
    tags = origin.as_tags()
    assert all(isinstance(value, str) for value in tags.values())
    assert tags["version.torch"] == record["versions"]["torch"]


def test_the_hardware_text(monkeypatch):
    monkeypatch.setattr(provenance, "gpu_names", lambda: ("NVIDIA H200", "NVIDIA H200"))
    monkeypatch.setattr(provenance, "cpu_name", lambda: "Xeon")
    monkeypatch.setattr(provenance, "usable_cores", lambda: 1)
    monkeypatch.setattr(provenance, "_memory_bytes", lambda: 24 * 2**30)
    assert collect().hardware() == "Xeon, 1 core, 24 GiB, 2 x NVIDIA H200"


def test_no_heavy_library_is_imported():
    code = (
        "import sys\n"
        "from platform.tracking.provenance import collect\n"
        "collect()\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/venv/bin/python", "-m", "platform.sweep", "a b"], "python -m platform.sweep 'a b'"),
        (["/venv/bin/python", "/venv/bin/resnet-sweep", "sweep", "x"], "resnet-sweep sweep x"),
    ],
)
def test_the_command_line_can_be_pasted(monkeypatch, words, command):
    monkeypatch.setattr(sys, "orig_argv", words)
    assert command_line() == command
