"""Files of one machine, read and written by Ray processes of other machines in chunks.

`FileServer` is an actor on the machine that has the files. File contents pass through Ray's object store, at
most `CHUNKS_IN_FLIGHT` chunks at a time for each file.
"""

from __future__ import annotations

import io
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from platform.common.atomic import discard_unfinished, replacing
from platform.common.errors import UserError

CHUNK_BYTES = 8 * 2**20
CHUNKS_IN_FLIGHT = 3
_LINES_IN_FLIGHT = 50
_COPY_ATTEMPTS = 3
_ANSWER_TIMEOUT_S = 10.0


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
    """Reads and writes files on the driver's node; an actor, which all other nodes call.

    Every call may be repeated: Ray repeats those that a lost connection has left without a reply.
    """

    def __init__(self, folder: Path, data_path: Path, data_sha256: str) -> None:
        discard_unfinished(folder, "probe")
        token = secrets.token_hex(16)
        probe = folder / f".probe.{token[:12]}.tmp"
        probe.write_text(token)
        self._served = Served(probe=probe, token=token, data_path=data_path, data_sha256=data_sha256)
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
            chunk = file.read(CHUNK_BYTES)
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


class ServedLog(io.TextIOBase):
    """Appends whole lines to a file on the driver's node, of which it is the only writer."""

    def __init__(self, server: Any, path: Path) -> None:
        self._server, self._path = server, str(path)
        self._line, self._pending = "", deque[Any]()
        self._size: int = (get_result(server, server.stat.remote(self._path)) or (0,))[0]

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
                get_result(self._server, self._pending.popleft())
        super().close()

    def _send(self, text: str) -> None:
        while len(self._pending) >= _LINES_IN_FLIGHT:
            get_result(self._server, self._pending.popleft())
        line = text.encode(errors="replace")
        self._pending.append(self._server.write.remote(self._path, self._size, line))
        self._size += len(line)


def pull(server: Any, source: str, target: Path) -> int:
    """Copy a file of the driver's node to this node; return its size."""
    for _ in range(_COPY_ATTEMPTS):
        size, version = get_result(server, server.stat.remote(source)) or (0, None)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                offsets = range(0, max(size, 1), CHUNK_BYTES)
                chunks = (server.read.remote(source, version, offset) for offset in offsets)
                file.writelines(_results(server, chunks))
        except FileChangedError:
            continue
        return int(size)
    raise UserError(f"{source} was replaced again and again while it was read")


def push(server: Any, source: Path, target: str) -> int:
    """Copy a file of this node to the driver's node, atomically; return its size."""
    folder, _, name = target.rpartition("/")
    temporary, size = f"{folder}/.{name}.{secrets.token_hex(6)}.tmp", source.stat().st_size
    with source.open("rb") as file:
        offsets = range(0, max(size, 1), CHUNK_BYTES)
        writes = (server.write.remote(temporary, offset, file.read(CHUNK_BYTES)) for offset in offsets)
        for _ in _results(server, writes):
            pass
    get_result(server, server.commit.remote(temporary, target, size))
    return size


def _results(server: Any, calls: Iterable[Any]) -> Iterator[Any]:
    """Yield the results of calls in their order; at most `CHUNKS_IN_FLIGHT` are made at a time."""
    pending = deque[Any]()
    for call in calls:
        pending.append(call)
        if len(pending) == CHUNKS_IN_FLIGHT:
            yield get_result(server, pending.popleft())
    while pending:
        yield get_result(server, pending.popleft())


def get_result(server: Any, reference: Any) -> Any:
    """Wait for the result of a call of the server.

    After an interruption of the network, the connection may be lost on the server's side only. A client that
    waits for a reply sends nothing, and Ray does not notice the loss. Another call reveals it at once, and
    Ray repeats all calls that have no reply.

    Raises:
        UserError: the driver's node cannot read or write the file.
        FileChangedError: the file was replaced while it was read.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError

    while True:
        try:
            return ray.get(reference, timeout=_ANSWER_TIMEOUT_S)
        except GetTimeoutError:
            server.served.remote()
        except RayTaskError as error:
            if isinstance(error.cause, FileChangedError):
                raise error.cause from None
            raise UserError(f"on the machine that runs the sweep: {cause_of(error)}") from None


def cause_of(error: Any) -> str:
    """Return the error of a remote call without its traceback."""
    cause = error.cause
    return str(cause) if isinstance(cause, UserError | OSError) else f"{type(cause).__name__}: {cause}"


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns
