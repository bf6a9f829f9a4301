"""The checkpoint of a run: a file that is whole or not there, of this run or refused.

`last.pt` is a torch archive of tensors and primitives. It is written under another name, synced and renamed,
so that kill -9 at any instant leaves the previous one; its entries carry checksums (CRC-32, written by
torch), which are compared on reading because torch does not; it is read with `weights_only=True`.
"""

from __future__ import annotations

import json
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from platform.atomic import replacing
from platform.errors import UserError
from platform.training.config import RunConfig
from platform.training.records import EpochRecord
from platform.training.run_folder import LAST

Result = TypeVar("Result")

_FORMAT = "resnet-sweep-platform/checkpoint"
_SCHEMA_VERSION = 1
_UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OSError,
)


def save_checkpoint(folder: Path, *, config: RunConfig, data_key: str, state: Mapping[str, Any]) -> None:
    """Write `folder`/last.pt.

    Args:
        folder: made if it is not there.
        config: the run's configuration, to refuse another one on reading.
        data_key: what the run trains on, to refuse other data on reading.
        state: tensors and primitives.

    Raises:
        UserError: the file cannot be written; the previous one is untouched.
    """
    document = {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "config": config.model_dump_json(),
        "data_key": data_key,
        "state": dict(state),
    }
    path = folder / LAST
    try:
        # Given a path, torch would hide the reason why it cannot write.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(document, file)
    except (OSError, RuntimeError) as error:
        # torch wraps an error of the file system into a RuntimeError of its own.
        reason = error.strerror if isinstance(error, OSError) else error.__context__ or error
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}; free some space or choose another folder"
        ) from error


class CheckpointWriter:
    """Writes checkpoints one after another, and reports each when it is on the disk.

    With `behind`, a thread writes a copy of the state while the run trains on, and a later `poll` reports it:
    an epoch is never reported before a resume would continue after it.
    """

    def __init__(self, write: Callable[[Mapping[str, Any]], None], *, behind: bool) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if behind else None
        self._pending: tuple[Future[None], Callable[[], None]] | None = None
        self.waited_s = 0.0
        """Wall seconds that checkpoints have kept the run waiting."""

    def save(self, state: Mapping[str, Any], *, then: Callable[[], None]) -> None:
        """Write `state`; `then` is called when it is on the disk."""
        self.finish()
        if self._thread is None:
            self._timed(lambda: self._write(state))
            then()
        else:
            copy = self._timed(lambda: _on_cpu(state))
            self._pending = self._thread.submit(self._write, copy), then

    def poll(self) -> None:
        """Report a checkpoint that has been written meanwhile."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and report it."""
        if self._pending is None:
            return
        (written, then), self._pending = self._pending, None
        self._timed(written.result)
        then()

    def close(self) -> None:
        """Wait for the checkpoint that is being written, without reporting it."""
        if self._thread is not None:
            self._thread.shutdown()

    def _timed(self, act: Callable[[], Result]) -> Result:
        began_s = time.monotonic()
        try:
            return act()
        finally:
            self.waited_s += time.monotonic() - began_s


def _on_cpu(value: Any) -> Any:
    """Copy a state's tensors to the CPU, wherever they are in it."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def load_checkpoint(folder: Path, *, config: RunConfig, data_key: str) -> dict[str, Any]:
    """Return the state in `folder`/last.pt, its tensors on the CPU.

    Raises:
        UserError: the file is damaged, foreign, or of another configuration, data or schema version.
    """
    path = folder / LAST
    document = _read(path)
    written = json.loads(document["config"])
    asked = json.loads(config.model_dump_json())
    if written != asked:
        changes = "; ".join(_changes(written, asked))
        raise UserError(
            f"a run goes on with the configuration it began with, and {path} began with another: {changes}. "
            f"Change it back, or train into another folder"
        )
    if document["data_key"] != data_key:
        raise UserError(
            f"a run goes on with the data it began with, and {path} began with other images "
            f"({document['data_key']}, now {data_key}): give those, or train into another folder"
        )
    state: dict[str, Any] = document["state"]
    return state


def read_records(folder: Path) -> tuple[EpochRecord, ...]:
    """Return the epochs recorded in `folder`/last.pt; none if there is no checkpoint.

    Raises:
        UserError: the checkpoint is damaged or foreign.
    """
    if not (folder / LAST).is_file():
        return ()
    return tuple(EpochRecord(**record) for record in _read(folder / LAST)["state"]["records"])


def _read(path: Path) -> dict[str, Any]:
    damaged = UserError(
        f"{path} is damaged or not a checkpoint of this platform (foreign objects are never loaded): "
        f"restore it from a copy, or remove it and begin again"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise damaged
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}: nothing to go on from; leave out --resume") from None
    except _UNREADABLE:
        # torch's own message advises `weights_only=False`, which would run code from the file.
        raise damaged from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise damaged
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {document.get('schema_version')!r}, this program reads "
            f"{_SCHEMA_VERSION}: go on with the program version that wrote it"
        )
    return document


def _changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Return `field.path was A, is B` for each difference between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted(old.keys() | new.keys())
            for change in _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path} was {json.dumps(old)}, is {json.dumps(new)}"]
