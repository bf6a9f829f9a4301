"""The sweep folder: unique names, lookup and state."""

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from platform.common.atomic import replacing, write_json
from platform.common.errors import UsageError, UserError
from platform.tracking.sweep_folder import SweepFolder, all_sweeps, find_sweep, latest, new_sweep_folder

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


def test_sweeps_of_one_second_get_different_folders(tmp_path):
    first = new_sweep_folder(tmp_path, "resnet18_cifar", now=NOON)
    second = new_sweep_folder(tmp_path, "resnet18_cifar", now=NOON)
    assert first.sweep_id == "resnet18_cifar-20260301-120000"
    assert second.sweep_id == "resnet18_cifar-20260301-120000-2"
    assert first.space == second.space == "resnet18_cifar"
    assert latest(tmp_path) == second


def test_latest_sorts_by_time(tmp_path):
    new_sweep_folder(tmp_path, "zebra", now=NOON)
    newest = new_sweep_folder(tmp_path, "ant", now=LATER)
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) == newest
    assert (tmp_path / "latest").resolve() == newest.path
    assert [folder.space for folder in all_sweeps(tmp_path)] == ["zebra", "ant"]


def test_latest_without_sweeps_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"python -m platform\.sweep"):
        latest(tmp_path / "absent")


def test_a_real_folder_named_latest_is_kept(tmp_path):
    (tmp_path / "latest").mkdir()
    new_sweep_folder(tmp_path, "s", now=NOON)
    assert not (tmp_path / "latest").is_symlink()


def test_unfinished_sweeps(tmp_path):
    done = new_sweep_folder(tmp_path, "s", now=NOON)
    stopped = new_sweep_folder(tmp_path, "s", now=LATER)
    stopped.set_state("interrupted", "Ctrl-C")
    for folder in (done, stopped):
        folder.spec.touch()
    # The newest sweep was killed before it wrote spec.yaml.
    new_sweep_folder(tmp_path, "s", now=LATER).set_state("interrupted")
    assert latest(tmp_path, unfinished=True) == stopped
    stopped.set_state("finished")
    done.set_state("finished")
    with pytest.raises(UserError, match="no unfinished sweep"):
        latest(tmp_path, unfinished=True)


def test_a_killed_sweep_is_interrupted(tmp_path):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)
    assert folder.get_state() == "running"
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    record = json.loads(folder.state.read_text())
    write_json(folder.state, {**record, "pid": int(gone.stdout)})
    assert folder.get_state() == "interrupted"
    assert not folder.unfinished
    folder.spec.touch()
    assert folder.unfinished


def test_a_copy_of_a_sweep_that_runs_on_another_machine_is_running(tmp_path):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)
    record = json.loads(folder.state.read_text())
    started = datetime(2026, 3, 1, tzinfo=UTC)
    there = {"host": "another-machine", "pid": 2**30, "running_since": started.isoformat()}
    write_json(folder.state, {**record, **there})
    os.utime(folder.state, (started.timestamp() + 60,) * 2)
    assert folder.get_state() == "running"
    assert folder.elapsed_s() == 60  # up to the last change before the copy, not until now


def test_a_new_state_keeps_the_time_of_the_first_start(tmp_path):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)
    record = json.loads(folder.state.read_text())
    write_json(folder.state, {**record, "started_at": "2020-01-01T00:00:00+00:00"})
    folder.set_state("failed", "no trial finished")
    after = json.loads(folder.state.read_text())
    assert after["started_at"] == "2020-01-01T00:00:00+00:00"
    assert (after["state"], after["message"], after["pid"]) == ("failed", "no trial finished", os.getpid())


@pytest.mark.parametrize(
    "odd",
    [
        {"pid": 10**30},
        {"pid": "x"},
        {"pid": None},
        {"active_s": "x"},
        {"active_s": float("nan")},
        {"active_s": [1]},
        {"started_at": "yesterday"},
        {"started_at": "2026-01-01T00:00:00"},
        {"running_since": 1e300},
        {"running_since": "9" * 5000},
        {"state": ["running"]},
        {"state": "done"},
    ],
    ids=str,
)
def test_odd_values_in_the_state_file_are_ignored(tmp_path, odd):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)
    record = {
        "state": "running",
        "started_at": NOON.isoformat(),
        "running_since": NOON.isoformat(),
        "pid": -1,
    }
    folder.state.write_text(json.dumps({**record, **odd}))
    assert folder.get_state() == "interrupted"
    assert folder.started_at in (NOON, None)
    assert folder.active_s == 0
    assert folder.elapsed_s() >= 0
    folder.set_state("failed", "")
    assert folder.get_state() == "failed"


def test_a_full_disk_does_not_hide_why_a_sweep_failed(tmp_path, monkeypatch):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("platform.tracking.sweep_folder.write_json", full)
    folder.set_state("failed", "the disk is full")
    with pytest.raises(OSError, match="No space left"):
        folder.set_state("running")


@pytest.mark.parametrize(("files", "kind"), [([], ""), (["run.json", "last.pt"], " but of a training run")])
def test_other_folders_are_not_sweeps(tmp_path, files, kind):
    sweep = new_sweep_folder(tmp_path, "s", now=NOON)
    other = tmp_path / "train-resnet32_cifar-20260301-120001"
    other.mkdir()
    for name in files:
        (other / name).touch()
    assert all_sweeps(tmp_path) == [sweep]
    for name in (other.name, str(other)):
        with pytest.raises(UsageError, match=f"is not the folder of a sweep{kind}; give"):
            find_sweep(name, root=tmp_path)


def test_find_sweep_by_id_by_path_or_the_newest(tmp_path):
    folder = new_sweep_folder(tmp_path, "s", now=NOON)
    assert find_sweep(folder.sweep_id, root=tmp_path) == folder
    assert find_sweep(str(folder.path), root=tmp_path / "elsewhere") == folder
    assert find_sweep(None, root=tmp_path) == folder
    with pytest.raises(UserError, match=r"did you mean 's-20260301-120000'"):
        find_sweep("s-20260301-120001", root=tmp_path)


def test_a_space_name_cannot_leave_the_root(tmp_path):
    with pytest.raises(UsageError, match="may contain letters"):
        new_sweep_folder(tmp_path, "../evil", now=NOON)


def test_a_root_that_is_a_file_is_a_user_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="runs"):
        new_sweep_folder(tmp_path / "runs", "s", now=NOON)


def test_a_failed_write_keeps_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fails_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_half_way()
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_sweep_folder(Path("runs"), "s", now=NOON).path.is_absolute()
    assert SweepFolder(tmp_path / "x").checkpoint_dir("t001") == tmp_path / "x" / "checkpoints" / "t001"
