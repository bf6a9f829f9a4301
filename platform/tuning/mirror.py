"""A copy of a sweep's folder that survives its machine: `--mirror URI`, restored by `--resume URI`.

The URI (s3, gs, a path: any file system of `pyarrow.fs`) holds one folder per sweep. A sweep's folder
keeps the URI, so a resumed sweep continues its mirror. Only changed files are copied. The journal is read
before the other files are copied and written after them, so every decision in the copied journal has its
files: a sweep restored at any moment resumes.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from platform.common.atomic import read_json, write_json
from platform.common.errors import UsageError, UserError
from platform.tracking.provenance import without_credentials
from platform.tracking.sweep_folder import SweepFolder

_FILE = "mirror.json"
"""In a sweep's folder: the URI, and the version of each file that was copied to it."""
_MARK = "mirror-of.json"
"""In a mirror: marks it as a copy, which `--resume` restores instead of continuing it in place."""
_JOURNAL = "journal.jsonl"
_NOT_COPIED = (_FILE, _JOURNAL, "tune/")
_INTERVAL_S = 20.0
_RETRY_S = 20
_BUFFER_BYTES = 8 * 2**20
_ATOMIC = ("s3", "gcs", "abfs")
"""File systems on which a file appears when it is complete, and folders need not be created."""

Version = tuple[int, int]
"""Size and modification time (ns) of a file."""


def mirror_uri(option: str | None, folder: SweepFolder | None) -> str | None:
    """Return the URI of a sweep's mirror: `option`, or the one it had before; None without a mirror.

    Raises:
        UsageError: `option` is not a folder or a URI that pyarrow supports.
        UserError: nothing can be written there.
    """
    if option is None:
        record = _record(folder)
        return str(record["uri"]) if record else None
    uri = _absolute(option)
    filesystem, path = _open(uri)
    try:
        with _output(filesystem, f"{path}/.probe") as stream:
            stream.write(b"probe")
        filesystem.delete_file(f"{path}/.probe")
    except OSError as error:
        raise UserError(
            f"cannot write to the mirror {without_credentials(uri)}: {_one_line(error)}; "
            "check the address and the credentials"
        ) from None
    return uri


class Mirror:
    """The copy of one sweep's folder.

    Args:
        folder: the sweep's folder.
        uri: the URI, kept in the folder without credentials.
        filesystem: a file system of `pyarrow.fs`.
        path: the folder of the copy on the file system.
    """

    def __init__(self, folder: SweepFolder, *, uri: str, filesystem: Any, path: str) -> None:
        self._folder, self._uri = folder, without_credentials(uri)
        self._filesystem, self._path = filesystem, path
        self._copied = self._known()

    def update(self) -> None:
        """Copy what has changed since the last call.

        Raises:
            OSError: the file system refuses a call, or does not answer.
        """
        journal = self._folder.journal.read_bytes() if self._folder.journal.exists() else b""
        journal_version = (journal.rfind(b"\n") + 1, 0)
        files = _versions(self._folder.path)
        changed = [name for name in files if self._copied.get(name) != files[name]]
        for name in changed:
            try:
                with (self._folder.path / name).open("rb") as file:
                    self._write(name, file)
            except FileNotFoundError:
                continue  # removed meanwhile
            self._copied[name] = files[name]
        removed = [name for name in self._copied if name not in (*files, _JOURNAL, _MARK)]
        for name in removed:
            if self._filesystem.get_file_info(f"{self._path}/{name}").is_file:
                self._filesystem.delete_file(f"{self._path}/{name}")
            del self._copied[name]
        if self._copied.get(_JOURNAL) != journal_version:
            self._write_bytes(_JOURNAL, journal[: journal_version[0]])
            self._copied[_JOURNAL] = journal_version
            changed.append(_JOURNAL)
        if _MARK not in self._copied:
            self._write_bytes(_MARK, f'{{"folder": "{self._folder.sweep_id}"}}\n'.encode())
            self._copied[_MARK] = (0, 0)
        if changed or removed:
            write_json(self._folder.path / _FILE, {"uri": self._uri, "files": self._copied})

    def _known(self) -> dict[str, Version]:
        """Return the versions of the copied files that are still in the mirror."""
        record = _record(self._folder)
        if record is None or record["uri"] != self._uri:
            return {}
        there = {name: info.size for name, info in _list(self._filesystem, self._path).items()}
        return {
            name: (size, time_ns)
            for name, (size, time_ns) in record["files"].items()
            if there.get(name) == size or (name == _MARK and name in there)
        }

    def _write(self, name: str, source: Any) -> None:
        with _output(self._filesystem, f"{self._path}/{name}") as stream:
            shutil.copyfileobj(source, stream, _BUFFER_BYTES)

    def _write_bytes(self, name: str, content: bytes) -> None:
        with _output(self._filesystem, f"{self._path}/{name}") as stream:
            stream.write(content)


@contextmanager
def mirrored(folder: SweepFolder, uri: str | None, *, warn: Callable[[str], None]) -> Iterator[None]:
    """Keep the mirror of a sweep up to date while the block runs, and update it at its end.

    Args:
        folder: the sweep's folder.
        uri: the result of `mirror_uri`; None for no mirror.
        warn: called when the mirror begins to fail, when it works again, and if it is behind at the end.
    """
    if uri is None:
        yield
        return
    if Path(uri) == folder.path.parent:
        raise UsageError(f"a mirror must be another folder than that of the sweeps, got {uri}")
    follower = _Follower(folder, uri, warn)
    write_json(folder.path / _FILE, {"files": {}, **(_record(folder) or {}), "uri": without_credentials(uri)})
    thread = threading.Thread(target=follower.run, daemon=True, name="mirror")
    thread.start()
    try:
        yield
    finally:
        follower.stop.set()
        thread.join()
        follower.update()
        if follower.is_failing:
            since = follower.updated_at
            warn(
                f"the mirror {without_credentials(uri)} is behind: "
                f"{f'last updated at {since:%H:%M:%S}' if since else 'it was never updated'}; "
                f"to update it: python -m platform.sweep --resume {folder.path}"
            )


class _Follower:
    """Updates a mirror at intervals; a failure is reported once."""

    def __init__(self, folder: SweepFolder, uri: str, warn: Callable[[str], None]) -> None:
        self._folder, self._uri, self._warn = folder, uri, warn
        self._mirror: Mirror | None = None
        self.stop = threading.Event()
        self.is_failing = False
        self.updated_at: datetime | None = None

    def run(self) -> None:
        """Update the mirror until `stop` is set."""
        while not self.stop.is_set():
            self.update()
            self.stop.wait(_INTERVAL_S)

    def update(self) -> None:
        """Update the mirror once."""
        import pyarrow as pa

        where = without_credentials(self._uri)
        try:
            if self._mirror is None:
                filesystem, path = _open(self._uri)
                self._mirror = Mirror(
                    self._folder,
                    uri=self._uri,
                    filesystem=filesystem,
                    path=f"{path}/{self._folder.sweep_id}",
                )
            self._mirror.update()
        except (OSError, pa.ArrowException, UserError) as error:
            if not self.is_failing:
                reason = _one_line(error)
                self._warn(f"cannot update the mirror {where}: {reason}; the sweep continues and tries again")
            self.is_failing = True
        else:
            if self.is_failing:
                self._warn(f"the mirror {where} is up to date again")
            self.is_failing, self.updated_at = False, datetime.now().astimezone()


def is_mirror(name: str) -> bool:
    """Return whether `--resume NAME` means a mirror: a URI, or a folder with a copy of a sweep."""
    if "://" in name:
        return True
    path = Path(name)
    return path.is_dir() and ((path / _MARK).is_file() or any(path.glob(f"*/{_MARK}")))


def restore(uri: str, root: Path, *, progress: Callable[[str], None]) -> SweepFolder:
    """Return the sweep's folder in `root`, copied from its mirror if it does not exist.

    Args:
        uri: the mirror of one sweep, or a folder of mirrors, of which the newest sweep is taken.
        root: the folder of the sweeps.
        progress: called with a message before the copy.

    Raises:
        UserError: there is no mirror of a sweep, or it cannot be read.
    """
    uri = _absolute(uri)
    filesystem, path = _open(uri)
    try:
        path = _sweep_path(filesystem, path, uri)
        sweep_id = path.rpartition("/")[2]
        folder = SweepFolder(root.absolute() / sweep_id)
        if folder.is_sweep():
            return folder
        progress(f"copying {sweep_id} from {without_credentials(uri)} to {folder.path}")
        _download(filesystem, path, folder, uri=uri.replace(f"/{sweep_id}", "", 1))
    except OSError as error:
        raise UserError(f"cannot read the mirror {without_credentials(uri)}: {_one_line(error)}") from None
    return folder


def _sweep_path(filesystem: Any, path: str, uri: str) -> str:
    """Return the path of the mirror of a sweep: `path` itself, or the newest one in it."""
    from pyarrow.fs import FileSelector

    if filesystem.get_file_info(f"{path}/{_MARK}").is_file:
        return path
    mirrors = [
        info.path
        for info in filesystem.get_file_info(FileSelector(path, allow_not_found=True))
        if not info.is_file and filesystem.get_file_info(f"{info.path}/{_MARK}").is_file
    ]
    if not mirrors:
        raise UserError(f"no mirror of a sweep at {without_credentials(uri)}; give the URI of --mirror")
    return str(max(mirrors, key=lambda each: re.findall(r"\d{8}-\d{6}(?:-\d+)?$", each) or [""]))


def _download(filesystem: Any, path: str, folder: SweepFolder, *, uri: str) -> None:
    """Copy a mirror to a sweep's folder, which appears when it is complete."""
    partial = folder.path.with_name(f".restoring-{folder.sweep_id}")
    shutil.rmtree(partial, ignore_errors=True)
    copied: dict[str, Version] = {}
    for name, info in _list(filesystem, path).items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.open_input_stream(info.path) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _BUFFER_BYTES)
        # The wall time of a killed sweep counts up to its last file.
        time_ns = info.mtime_ns or time.time_ns()
        os.utime(target, ns=(time_ns, time_ns))
        copied[name] = _version(target)
    copied[_JOURNAL], copied[_MARK] = ((partial / _JOURNAL).stat().st_size, 0), (0, 0)
    (partial / _MARK).unlink()
    write_json(partial / _FILE, {"uri": without_credentials(uri), "files": copied})
    _forget_lost_store(partial)
    partial.rename(folder.path)


def _forget_lost_store(folder: Path) -> None:
    """Remove the record of a restored sweep's MLflow store if that was a file of the lost machine."""
    store = folder / "mlflow.json"
    if store.exists():
        uri = str(read_json(store, remedy="remove it")["tracking_uri"])
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            store.unlink()


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _open(uri: str) -> tuple[Any, str]:
    """Return the file system and the path of a URI.

    Raises:
        UsageError: pyarrow does not support the URI.
        UserError: the storage does not answer.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    if uri.startswith(("gs:", "gcs:")) and "retry_limit_seconds" not in uri:
        # By default a call is repeated for 15 minutes, and an interrupted sweep would wait for it.
        uri = f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={_RETRY_S}"
    try:
        filesystem, path = FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"a mirror must be a folder or a URI such as s3://BUCKET/PATH or gs://BUCKET/PATH, got "
            f"{without_credentials(uri)!r}: {_one_line(error)}"
        ) from None
    except OSError as error:
        raise UserError(
            f"the mirror {without_credentials(uri)} does not answer: {_one_line(error)}"
        ) from None
    return filesystem, path.rstrip("/")


@contextmanager
def _output(filesystem: Any, path: str) -> Iterator[Any]:
    """Yield a stream to a file that appears, or is replaced, when it is complete."""
    if filesystem.type_name in _ATOMIC:
        with filesystem.open_output_stream(path) as stream:
            yield stream
        return
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.tmp"
    filesystem.create_dir(folder, recursive=True)
    with filesystem.open_output_stream(temporary) as stream:
        yield stream
    filesystem.move(temporary, path)


def _list(filesystem: Any, path: str) -> dict[str, Any]:
    """Return the complete files of a mirror by name."""
    from pyarrow.fs import FileSelector

    found = filesystem.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
    start = len(path.strip("/")) + 1
    names = {info.path.strip("/")[start:]: info for info in found if info.is_file}
    return {name: info for name, info in names.items() if not name.endswith(".tmp")}


def _versions(folder: Path) -> dict[str, Version]:
    """Return the versions of the files to copy: checkpoints first, because the tables describe them."""
    found = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent) / file
            name = path.relative_to(folder).as_posix()
            if not name.startswith(_NOT_COPIED) and not name.endswith(".tmp"):
                with suppress(FileNotFoundError):  # replaced or removed meanwhile
                    found[name] = _version(path)
    return dict(sorted(found.items(), key=lambda item: (not item[0].startswith("checkpoints/"), item[0])))


def _version(path: Path) -> Version:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _record(folder: SweepFolder | None) -> dict[str, Any] | None:
    if folder is None or not (folder.path / _FILE).exists():
        return None
    record: Mapping[str, Any] = read_json(folder.path / _FILE, remedy="remove it")
    return {
        "uri": str(record["uri"]),
        "files": {name: (int(size), int(time_ns)) for name, (size, time_ns) in record["files"].items()},
    }


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return without_credentials(text if len(text) <= 300 else f"{text[:300]} ...")
