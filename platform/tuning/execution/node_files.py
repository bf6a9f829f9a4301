"""The files of trials on a cluster whose nodes do not share the sweep's folder.

An actor on the driver's node, `FileServer`, reads and writes files there; file contents pass through Ray's
object store in chunks. A process on another node

- copies the images to the node's dataset cache before its first trial, unless the node has them;
- copies each checkpoint, and the trained model, to the sweep's folder before the epoch is reported, so the
  journal never holds an epoch that a trial could not resume from on another node;
- writes the trial's log into the sweep's folder, line by line.

A node that can read the server's probe file shares the folder, and uses it directly. A local session has no
server.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
from typing_extensions import override

from platform.common.atomic import discard_unfinished, replacing
from platform.common.errors import UserError
from platform.data import cache
from platform.data.dataset import DatasetInfo
from platform.tracking.events import SweepObserver
from platform.tracking.sweep_folder import SweepFolder
from platform.training.run_folder import LAST
from platform.tuning.execution.cluster_nodes import is_answering
from platform.tuning.journal.trial import FAILURE, TrialFailed, TrialTask, open_log_file

_CHUNK_BYTES = 8 * 2**20
_CHUNKS_IN_FLIGHT = 3
_LINES_IN_FLIGHT = 50
_DATASET_FILES = ("dataset.json", "train.arrow", "test.arrow")
_COPY_ATTEMPTS = 3
_SERVER_POLL_S = 1.0


class FileChangedError(Exception):
    """A file was replaced while it was read."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The content of a server. All paths are those of the driver's node."""

    probe: Path
    """A file in the sweep's folder. A node that can read `token` from it shares the folder."""
    token: str
    data_path: Path
    """The dataset's folder in the cache."""
    data_sha256: str
    """The content hash of the dataset."""


class FileServer:
    """Reads and writes files on the driver's node; an actor, which all other nodes call."""

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        discard_unfinished(folder, "probe")
        token = secrets.token_hex(16)
        probe = folder / f".probe.{token[:12]}.tmp"
        probe.write_text(token)
        self._served = Served(probe=probe, token=token, data_path=info.path, data_sha256=info.sha256)
        self._sent_bytes = 0

    def served(self) -> Served:
        """Return what this server serves."""
        return self._served

    def sent_bytes(self) -> int:
        """Return how many bytes of files were read."""
        return self._sent_bytes

    def stat(self, path: str) -> tuple[int, tuple[int, int]] | None:
        """Return the size and the version (inode and time) of a file; None if it does not exist."""
        with suppress(FileNotFoundError):
            status = Path(path).stat()
            return status.st_size, _version(status)
        return None

    def read(self, path: str, version: tuple[int, int], offset: int) -> bytes:
        """Return a chunk of a file.

        Raises:
            FileChangedError: the file has another version.
        """
        with Path(path).open("rb") as file:
            if _version(os.fstat(file.fileno())) != version:
                raise FileChangedError(path)
            file.seek(offset)
            chunk = file.read(_CHUNK_BYTES)
        self._sent_bytes += len(chunk)
        return chunk

    def discard_unfinished(self, folder: str) -> None:
        """Remove the files that a process which has died did not copy completely."""
        discard_unfinished(Path(folder))

    def write(self, path: str, offset: int, chunk: bytes) -> None:
        """Write a chunk of a file, and create the file and its folder if needed."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, chunk, offset)
        finally:
            os.close(fd)

    def commit(self, temporary: str, path: str, size: int) -> None:
        """Sync a file that was written, and rename it to `path`."""
        if self.stat(temporary) is None and (self.stat(path) or (None,))[0] == size:
            return  # the call is repeated, because the reply was lost
        with Path(temporary).open("rb+") as file:
            got = os.fstat(file.fileno()).st_size
            if got != size:
                raise UserError(f"the copy of {path} must have {size} bytes, got {got}")
            os.fsync(file.fileno())
        Path(temporary).replace(path)

    def append(self, path: str, text: str) -> None:
        """Append text to a file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


@contextmanager
def file_server(folder: SweepFolder, info: DatasetInfo, observer: SweepObserver) -> Iterator[str | None]:
    """Serve the sweep's files to the nodes of a cluster, and place the images on the nodes that lack them.

    Yields:
        The name of the server, for `trial_files`; None in a local session, which needs no server.

    Raises:
        UserError: a node cannot store the images or has no working copy of this program.
    """
    if not os.environ.get("RAY_ADDRESS"):
        yield None
        return
    import ray

    name = f"files-{folder.sweep_id}-{secrets.token_hex(4)}"
    server: Any = (
        ray.remote(FileServer)
        .options(
            name=name, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_on(_here())
        )
        .remote(folder.path, info)
    )
    try:
        ray.get(server.served.remote())  # its folder is writable
        _place_images_on_nodes(server, info, observer)
        yield name
    finally:
        discard_unfinished(folder.path, "probe")
    if is_answering():  # after an error the job ends, and the server with it
        ray.kill(server)


def _place_images_on_nodes(server: Any, info: DatasetInfo, observer: SweepObserver) -> None:
    """Place the images on every node that is alive; one that joins later gets them before its first trial."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    place = ray.remote(_place_images)
    nodes = {
        place.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node["NodeID"])).remote(
            server
        ): node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] != _here()
    }
    began_s, copied, is_announced = time.monotonic(), list[str](), False
    running = list(nodes)
    while running:
        done, running = ray.wait(running, timeout=_SERVER_POLL_S)
        if not is_announced and ray.get(server.sent_bytes.remote()):
            is_announced = True
            observer.cluster_changed(f"copying the images ({_size(info.path) / 1e6:.0f} MB) to the nodes")
        for task in done:
            try:
                if ray.get(task)[1]:
                    copied.append(nodes[task])
            except RayTaskError as error:
                raise UserError(f"the node {nodes[task]} cannot run trials: {_cause(error)}") from error
            except RayError:
                continue  # the node has left
    if copied:
        took_s = time.monotonic() - began_s
        observer.cluster_changed(f"the images were copied to {', '.join(sorted(copied))} in {took_s:.1f} s")


def _place_images(server: Any) -> tuple[Path, int]:
    """Return the folder of the dataset on this node, and the bytes that were copied there."""
    served: Served = _get(server.served.remote())
    path, cache_dir = served.data_path, cache.default_cache_dir()
    for folder in (path, cache_dir / "datasets" / path.name):
        if cache.find_copy(folder, served.data_sha256) is not None:
            return folder, 0
    copied = 0

    def write_files(folder: Path) -> None:
        nonlocal copied
        copied = sum(_pull(server, f"{path}/{file}", folder / file) for file in _DATASET_FILES)

    return cache.store_copy(cache_dir, path.name, served.data_sha256, write_files).path, copied


class TrialFiles:
    """The files of one trial in a process that trains it.

    Attributes:
        checkpoint_dir: the folder of last.pt and model.pt on this node.
    """

    def __init__(self, task: TrialTask, server: Any, scratch: Path | None) -> None:
        self.checkpoint_dir = Path(task.checkpoint_dir) if scratch is None else scratch
        self._task, self._server, self._is_copied = task, server, scratch is not None
        self._moved_bytes = 0

    def place_images(self) -> tuple[Path, str | None]:
        """Return the dataset's folder on this node, and a note if the images had to be copied here."""
        if self._server is None:
            return Path(self._task.data_path), None
        began_s = time.monotonic()
        path, copied = _place_images(self._server)
        self._moved_bytes += copied
        took_s, host = time.monotonic() - began_s, os.uname().nodename
        return path, f"the images were copied to {host} in {took_s:.1f} s" if copied else None

    def fetch_checkpoint(self) -> None:
        """Copy the trial's checkpoint to this node, if there is one."""
        if not self._is_copied:
            return
        _get(self._server.discard_unfinished.remote(self._task.checkpoint_dir))
        source = f"{self._task.checkpoint_dir}/{LAST}"
        if _get(self._server.stat.remote(source)) is not None:
            self._moved_bytes += _pull(self._server, source, self.checkpoint_dir / LAST)

    def save(self, path: Path) -> None:
        """Copy a file of `checkpoint_dir` to the sweep's folder; it replaces the earlier one atomically."""
        if self._is_copied:
            self._moved_bytes += _push(self._server, path, f"{self._task.checkpoint_dir}/{path.name}")

    def open_log(self, path: Path) -> TextIO:
        """Open a log in the sweep's folder, to append to it."""
        if self._is_copied:
            return _ServedLog(self._server, path)  # type: ignore[return-value]
        return open_log_file(path)

    def failure_metrics(self, failure: TrialFailed) -> dict[str, Any]:
        """Return the metrics that report a failure to Tune, with paths of the driver's node."""
        text = failure.text.replace(str(self.checkpoint_dir), self._task.checkpoint_dir)
        return failure.as_metrics() | {FAILURE: text}

    def take_moved_bytes(self) -> int | None:
        """Return the bytes copied between nodes since the last call; None if there were none."""
        moved, self._moved_bytes = self._moved_bytes, 0
        return moved or None


@contextmanager
def trial_files(task: TrialTask, server_name: str | None) -> Iterator[TrialFiles]:
    """Yield the files of a trial; `server_name` is that of `file_server`.

    On a node that does not share the sweep's folder the trial's checkpoints lie in a scratch folder, which is
    removed at the end.
    """
    if server_name is None:
        yield TrialFiles(task, None, None)
        return
    import ray

    server: Any = ray.get_actor(server_name)
    if _shares_folder(ray.get(server.served.remote())):
        yield TrialFiles(task, server, None)
        return
    parent = cache.default_cache_dir() / "trials"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    scratch = Path(tempfile.mkdtemp(prefix=f"{os.uname().nodename}.{os.getpid()}.", dir=parent))
    try:
        yield TrialFiles(task, server, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _shares_folder(served: Served) -> bool:
    """Return whether this node can read the probe file, and can write next to it."""
    try:
        if served.probe.read_text() != served.token:
            return False
        with tempfile.TemporaryFile(dir=served.probe.parent):
            return True
    except OSError:
        return False


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of processes of this machine that were killed."""
    for folder in parent.glob(f"{os.uname().nodename}.*"):
        if not psutil.pid_exists(int(folder.name.split(".")[-2])):
            shutil.rmtree(folder, ignore_errors=True)


class _ServedLog(io.TextIOBase):
    """Appends whole lines to a file on the driver's node."""

    def __init__(self, server: Any, path: Path) -> None:
        self._server, self._path = server, path
        self._line, self._pending = "", deque[Any]()

    @override
    def write(self, text: str, /) -> int:
        whole, newline, self._line = (self._line + text).rpartition("\n")
        if newline:
            self._send(whole + newline)
        return len(text)

    @override
    def close(self) -> None:
        if not self.closed:
            self._send(self._line)
            while self._pending:
                _get(self._pending.popleft())
        super().close()

    def _send(self, text: str) -> None:
        while len(self._pending) >= _LINES_IN_FLIGHT:
            _get(self._pending.popleft())
        self._pending.append(self._server.append.remote(str(self._path), text))


def _pull(server: Any, source: str, target: Path) -> int:
    """Copy a file of the driver's node to this node; return its size."""
    for _ in range(_COPY_ATTEMPTS):
        size, version = _get(server.stat.remote(source)) or (0, None)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                pending = deque[Any]()
                for offset in range(0, max(size, 1), _CHUNK_BYTES):
                    pending.append(server.read.remote(source, version, offset))
                    if len(pending) == _CHUNKS_IN_FLIGHT:
                        file.write(_get(pending.popleft()))
                while pending:
                    file.write(_get(pending.popleft()))
        except FileChangedError:
            continue
        return int(size)
    raise UserError(f"{source} was replaced again and again while it was read")


def _push(server: Any, source: Path, target: str) -> int:
    """Copy a file of this node to the driver's node, atomically; return its size."""
    folder, _, name = target.rpartition("/")
    temporary, size = f"{folder}/.{name}.{secrets.token_hex(6)}.tmp", source.stat().st_size
    pending = deque[Any]()
    with source.open("rb") as file:
        for offset in range(0, max(size, 1), _CHUNK_BYTES):
            pending.append(server.write.remote(temporary, offset, file.read(_CHUNK_BYTES)))
            if len(pending) == _CHUNKS_IN_FLIGHT:
                _get(pending.popleft())
    while pending:
        _get(pending.popleft())
    _get(server.commit.remote(temporary, target, size))
    return size


def _get(reference: Any) -> Any:
    """Return the result of a call of the server.

    Raises:
        UserError: the driver's node cannot read or write the file.
        FileChangedError: the file was replaced while it was read.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, FileChangedError):
            raise error.cause from None
        raise UserError(f"on the machine that runs the sweep: {_cause(error)}") from None


def _cause(error: Any) -> str:
    """Return the error of a remote call without its traceback."""
    cause = error.cause
    return str(cause) if isinstance(cause, UserError | OSError) else f"{type(cause).__name__}: {cause}"


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _here() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _size(folder: Path) -> int:
    return sum((folder / file).stat().st_size for file in _DATASET_FILES)
