"""The files of a trial on a node that does not share the sweep's folder, and on one that does."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from platform.common.errors import UserError
from platform.data.cache import find_copy
from platform.data.dataset import DatasetInfo
from platform.tuning import file_server
from platform.tuning.execution import node_files
from platform.tuning.execution.node_files import TrialFiles, trial_files
from platform.tuning.file_server import CHUNK_BYTES, FileChangedError, FileServer
from platform.tuning.journal.trial import TrialFailed, TrialTask
from tests.tuning.journal.examples import a_task

pytestmark = pytest.mark.usefixtures("ray_session")

CHECKPOINT = os.urandom(2 * CHUNK_BYTES + 5)


@pytest.fixture
def dataset(info: DatasetInfo, tmp_path: Path) -> DatasetInfo:
    copy = tmp_path / "driver" / info.path.name
    shutil.copytree(info.path, copy)
    found = find_copy(copy, info.sha256)
    assert found is not None
    return found


@pytest.fixture
def server(folder: Path, dataset: DatasetInfo) -> Iterator[str]:
    actor = (
        ray.remote(FileServer)
        .options(name="files-test", num_cpus=0)
        .remote(folder, dataset.path, dataset.sha256)
    )
    ray.get(actor.served.remote())
    yield "files-test"
    ray.kill(actor)


@pytest.fixture
def task(folder: Path, dataset: DatasetInfo) -> TrialTask:
    paths = {
        "data_path": str(dataset.path),
        "checkpoint_dir": str(folder / "checkpoints" / "t000"),
        "log_path": str(folder / "logs" / "t000.log"),
    }
    return a_task().model_copy(update=paths)


@pytest.fixture
def files(
    server: str, task: TrialTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrialFiles]:
    """The files of a trial on another node, whose cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    monkeypatch.setattr(node_files, "_shares_folder", lambda _: False)
    with trial_files(task, server) as opened:
        yield opened
    assert not opened.checkpoint_dir.exists(), "the scratch folder is left"


def test_a_node_that_reads_the_probe_file_uses_the_shared_folder(server: str, task: TrialTask) -> None:
    with trial_files(task, server) as files:
        assert files.checkpoint_dir == Path(task.checkpoint_dir)
        assert files.place_images() == (Path(task.data_path), None)
        files.fetch_checkpoint()
        files.save(files.checkpoint_dir / "last.pt")  # not copied: it does not exist
        assert files.take_moved_bytes() is None


def test_a_probe_file_of_another_folder_is_not_a_shared_one(
    server: str, task: TrialTask, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    [probe] = folder.glob(".probe.*")
    probe.write_text("another sweep's")
    with trial_files(task, server) as files:
        assert files.checkpoint_dir != Path(task.checkpoint_dir)


def test_a_checkpoint_arrives_whole_and_replaces_the_earlier_one(
    files: TrialFiles, task: TrialTask, folder: Path
) -> None:
    target = Path(task.checkpoint_dir) / "last.pt"
    for content in (b"epoch 1", CHECKPOINT):
        (files.checkpoint_dir / "last.pt").write_bytes(content)
        files.save(files.checkpoint_dir / "last.pt")
        assert target.read_bytes() == content
        assert files.take_moved_bytes() == len(content)
    assert [path.name for path in target.parent.iterdir()] == ["last.pt"]


def test_a_trial_that_moves_gets_its_checkpoint(files: TrialFiles, task: TrialTask) -> None:
    files.fetch_checkpoint()
    assert not (files.checkpoint_dir / "last.pt").exists()
    target = Path(task.checkpoint_dir)
    target.mkdir(parents=True)
    (target / "last.pt").write_bytes(CHECKPOINT)
    (target / ".last.pt.0123.tmp").write_bytes(b"half of the next one")
    files.fetch_checkpoint()
    assert (files.checkpoint_dir / "last.pt").read_bytes() == CHECKPOINT
    assert [path.name for path in target.iterdir()] == ["last.pt"]


def test_a_file_replaced_while_it_is_read_is_noticed(
    folder: Path, dataset: DatasetInfo, tmp_path: Path
) -> None:
    server, path = FileServer(folder, dataset.path, dataset.sha256), tmp_path / "last.pt"
    path.write_bytes(b"epoch 1")
    _, version = server.stat(str(path))  # type: ignore[misc]
    assert server.read(str(path), version, 0) == b"epoch 1"
    (tmp_path / "next").write_bytes(b"epoch 2")
    (tmp_path / "next").replace(path)
    with pytest.raises(FileChangedError):
        server.read(str(path), version, 0)


def test_repeated_calls_are_harmless_and_an_incomplete_commit_is_refused(
    folder: Path, dataset: DatasetInfo, tmp_path: Path
) -> None:
    server, target = FileServer(folder, dataset.path, dataset.sha256), str(tmp_path / "last.pt")
    for offset, chunk in ((0, b"who"), (3, b"le"), (3, b"le"), (0, b"who")):
        server.write(f"{target}.tmp", offset, chunk)
    server.commit(f"{target}.tmp", target, 5)
    server.commit(f"{target}.tmp", target, 5)
    server.write(f"{target}.tmp", 0, b"half")
    with pytest.raises(UserError, match="must have 9 bytes, got 4"):
        server.commit(f"{target}.tmp", target, 9)
    assert Path(target).read_bytes() == b"whole"


def test_a_call_without_an_answer_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_server, "_ANSWER_TIMEOUT_S", 0.1)
    server = ray.remote(_Server).options(max_concurrency=2, num_cpus=0).remote()
    assert file_server.get_result(server, server.read.remote()) == b"chunk"


class _Server:
    """Answers a call when another one arrives, as after a lost connection that the client has not noticed."""

    def __init__(self) -> None:
        self._called = threading.Event()

    def served(self) -> None:
        self._called.set()

    def read(self) -> bytes:
        assert self._called.wait(60)
        return b"chunk"


def test_images_are_copied_once_and_their_digest_is_checked(
    files: TrialFiles, dataset: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.place_images() == (dataset.path, None)  # this node has the same folder

    original = node_files.cache.find_copy
    monkeypatch.setattr(
        node_files.cache,
        "find_copy",
        lambda folder, sha256: None if folder == dataset.path else original(folder, sha256),
    )
    whole = (dataset.path / "train.arrow").read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    (dataset.path / "train.arrow").write_bytes(changed)
    with pytest.raises(UserError, match="must have the content hash"):
        files.place_images()

    (dataset.path / "train.arrow").write_bytes(whole)
    path, note = files.place_images()
    assert path != dataset.path
    assert (path / "train.arrow").read_bytes() == whole
    assert note is not None
    assert note.startswith("the images were copied to ")
    moved = files.take_moved_bytes()
    assert moved is not None
    assert moved >= len(whole)
    assert files.place_images() == (path, None)
    assert [each.name for each in path.parent.iterdir() if not each.name.endswith(".lock")] == [path.name]


def test_lines_of_the_log_arrive_as_they_are_written(files: TrialFiles, task: TrialTask) -> None:
    path = Path(task.log_path)
    path.parent.mkdir()
    path.write_text("of the first node\n")
    with files.open_log(path) as log:
        print("epoch 1", file=log)
        print("epoch 2\nepoch", end="", file=log)
        ray.get(log._pending[-1])  # type: ignore[attr-defined]
        assert path.read_text() == "of the first node\nepoch 1\nepoch 2\n"
    assert path.read_text() == "of the first node\nepoch 1\nepoch 2\nepoch"


def test_a_failure_names_the_checkpoint_of_the_sweeps_folder(files: TrialFiles, task: TrialTask) -> None:
    failure = TrialFailed(f"the loss is NaN; checkpoint: {files.checkpoint_dir}/last.pt")
    assert files.failure_metrics(failure)["trial_failure"].endswith(f"{task.checkpoint_dir}/last.pt")


def test_an_error_of_the_drivers_node_is_reported_without_a_traceback(
    files: TrialFiles, task: TrialTask
) -> None:
    Path(task.checkpoint_dir).parent.write_text("a file instead of a folder")
    (files.checkpoint_dir / "last.pt").write_bytes(b"epoch 1")
    with pytest.raises(UserError, match=r"^on the machine that runs the sweep: .*Not a directory") as error:
        files.save(files.checkpoint_dir / "last.pt")
    assert "\n" not in str(error.value)
