"""The mirror of a sweep's folder: complete, incremental, restorable at every moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FileSelector, FSSpecHandler, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from platform.common.errors import UsageError, UserError
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning import mirror as mirrors
from platform.tuning.mirror import Mirror, is_mirror, mirror_uri, mirrored, restore

NAME = "tiny-20260101-000000"


def write_epoch(folder: Path, epoch: int) -> None:
    """Write an epoch as a sweep does: the checkpoint first, then the journal, then the tables."""
    (folder / "checkpoints" / "t000").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "t000" / "last.pt").write_text(str(epoch))
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write(f'{{"epoch": {epoch}}}\n')
    (folder / "trials.parquet").write_text(f"after epoch {epoch}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / NAME
    path.mkdir(parents=True)
    (path / "spec.yaml").write_text("name: tiny\n")
    write_epoch(path, 1)
    return path


@pytest.fixture(params=["folder", "subtree", "memory"])
def filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "folder":
        (tmp_path / "mirror").mkdir()
        yield SubTreeFileSystem(str(tmp_path / "mirror"), LocalFileSystem())
    elif request.param == "subtree":
        yield SubTreeFileSystem("/sweeps", PyFileSystem(FSSpecHandler(fsspec.filesystem("memory"))))
    else:
        yield PyFileSystem(FSSpecHandler(fsspec.filesystem("memory")))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def content(filesystem: Any, path: str = NAME) -> dict[str, str]:
    found = filesystem.get_file_info(FileSelector(path, recursive=True))
    files = [info.path for info in found if info.is_file]
    return {
        file.strip("/").removeprefix(f"{path}/"): filesystem.open_input_stream(file).read().decode()
        for file in files
    }


def local_content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def a_mirror(folder: Path, filesystem: Any) -> Mirror:
    return Mirror(SweepFolder(folder), uri="memory://mirror", filesystem=filesystem, path=NAME)


def test_only_changed_files_are_copied_and_removed_ones_deleted(
    folder: Path, filesystem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tune").mkdir()
    (folder / "tune" / "ray.json").write_text("not copied")
    (folder / ".state.json.12.tmp").write_text("not copied")
    (folder / "test.json").write_text("{}")
    mirror = a_mirror(folder, filesystem)
    mirror.update()
    expected = {
        "checkpoints/t000/last.pt": "1",
        "journal.jsonl": '{"epoch": 1}\n',
        "spec.yaml": "name: tiny\n",
        "test.json": "{}",
        "trials.parquet": "after epoch 1",
    }
    assert {k: v for k, v in content(filesystem).items() if k != "mirror-of.json"} == expected

    written: list[str] = []
    original = mirrors._output
    monkeypatch.setattr(mirrors, "_output", lambda fs, path: written.append(path) or original(fs, path))
    write_epoch(folder, 2)
    (folder / "test.json").unlink()
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"epoch":')  # the writer has not finished this line
    # Another process, as after `--resume`, reads the versions of the copied files.
    a_mirror(folder, filesystem).update()
    assert written == [
        f"{NAME}/{file}" for file in ("checkpoints/t000/last.pt", "trials.parquet", "journal.jsonl")
    ]
    got = content(filesystem)
    assert got["journal.jsonl"] == '{"epoch": 1}\n{"epoch": 2}\n'
    assert "test.json" not in got

    filesystem.delete_file(f"{NAME}/spec.yaml")
    a_mirror(folder, filesystem).update()
    assert content(filesystem)["spec.yaml"] == "name: tiny\n", "a file that the mirror lost is copied again"


@pytest.mark.parametrize("calls", range(8))
def test_a_sweep_restored_at_any_moment_has_the_checkpoints_of_its_journal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    base = tmp_path / "mirror"
    base.mkdir()
    filesystem = SubTreeFileSystem(str(base), LocalFileSystem())
    a_mirror(folder, filesystem).update()
    write_epoch(folder, 2)
    write_epoch(folder, 3)
    (folder / "checkpoints" / "t000" / "model.pt").write_text("model")

    done, original = 0, mirrors._output

    @contextmanager
    def failing(filesystem: Any, path: str) -> Iterator[Any]:
        nonlocal done
        if (done := done + 1) > calls:
            raise OSError("the connection was closed")
        with original(filesystem, path) as stream:
            if path.endswith("last.pt"):
                write_epoch(folder, 4)  # the sweep continues meanwhile
            yield stream

    monkeypatch.setattr(mirrors, "_output", failing)
    try:
        a_mirror(folder, filesystem).update()
    except OSError:
        assert done <= 5
    restored = restore(str(base / NAME), tmp_path / "elsewhere", progress=lambda _: None).path
    journaled = [json.loads(line)["epoch"] for line in (restored / "journal.jsonl").read_text().splitlines()]
    assert journaled == [1] or journaled == [1, 2, 3]
    assert int((restored / "checkpoints" / "t000" / "last.pt").read_text()) >= journaled[-1]
    assert (restored / "checkpoints" / "t000" / "model.pt").exists() or journaled == [1]


def test_a_mirror_is_restored_when_the_local_folder_is_absent(folder: Path, tmp_path: Path) -> None:
    base, root = tmp_path / "mirror", folder.parent
    (folder / "mlflow.json").write_text('{"tracking_uri": "sqlite:////lost/mlflow.db"}')
    uri = mirror_uri(str(base), None)
    with mirrored(SweepFolder(folder), uri, warn=pytest.fail):
        write_epoch(folder, 2)
    expected = local_content(folder)
    assert is_mirror(str(base))
    assert is_mirror(str(base / NAME))
    assert not is_mirror(str(folder))

    messages: list[str] = []
    assert restore(str(base), root, progress=messages.append).path == folder
    assert messages == [], "the local folder is used"

    folder.rename(tmp_path / "lost")
    restored = restore(str(base), root, progress=messages.append)
    assert restored.path == folder
    got = local_content(folder)
    assert got.pop("mirror.json")
    assert "mlflow.json" not in got, "the MLflow store was a file of the lost machine"
    assert got == {
        name: text for name, text in expected.items() if name not in ("mirror.json", "mlflow.json")
    }
    assert mirror_uri(None, restored) == uri, "the restored sweep continues its mirror"
    assert messages == [f"copying {NAME} from {base} to {folder}"]


def test_a_failing_mirror_is_reported_once_and_at_the_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "mirror"
    uri = mirror_uri(str(base), None)
    warnings: list[str] = []
    monkeypatch.setattr(mirrors, "_INTERVAL_S", 0.01)

    def wait_for(count: int) -> None:
        end_s = time.monotonic() + 30
        while len(warnings) < count and time.monotonic() < end_s:
            time.sleep(0.01)

    with mirrored(SweepFolder(folder), uri, warn=warnings.append):
        while not (base / NAME / "journal.jsonl").exists():
            time.sleep(0.01)
        (base / NAME / "checkpoints").rename(tmp_path / "away")
        (base / NAME / "checkpoints").write_text("a file in the way")
        write_epoch(folder, 2)
        wait_for(1)
        time.sleep(0.1)
        assert len(warnings) == 1
        assert warnings[0].startswith(f"cannot update the mirror {base}: ")
        assert warnings[0].endswith("; the sweep continues and tries again")
        (base / NAME / "checkpoints").unlink()
        wait_for(2)
        assert warnings[1:] == [f"the mirror {base} is up to date again"]
        (base / NAME / "checkpoints").rename(tmp_path / "away2")
        (base / NAME / "checkpoints").write_text("a file in the way")
        write_epoch(folder, 3)
        wait_for(3)
    assert len(warnings) == 4
    assert warnings[3].startswith(f"the mirror {base} is behind: last updated at ")
    assert warnings[3].endswith(f"to update it: python -m platform.sweep --resume {folder}")
    assert json.loads((folder / "mirror.json").read_text())["uri"] == str(base)


def test_an_unusable_mirror_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a mirror must be a folder or a URI such as s3://BUCKET/PATH"):
        mirror_uri("ftp://user:secret@host/path", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the mirror"):
        mirror_uri(str(tmp_path / "file"), None)
    with (
        pytest.raises(UsageError, match="must be another folder"),
        mirrored(SweepFolder(folder), str(folder.parent), warn=pytest.fail),
    ):
        pass
    with pytest.raises(UserError, match="no mirror of a sweep at"):
        restore(str(tmp_path / "empty"), tmp_path / "runs", progress=lambda _: None)
