"""The checkpoint of a run, `last.pt`: written atomically, verified when read.

The file is a torch archive of tensors and primitives. It is written under a temporary name, synced and
renamed, so that kill -9 at any time leaves the previous checkpoint intact. On reading, the CRC-32 checksums
written by torch are verified (torch itself does not), `weights_only=True` rejects foreign objects, and a
checkpoint of another configuration or other data is rejected.
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

from platform.common.atomic import replacing
from platform.common.errors import UserError
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
        folder: created if it does not exist.
        config: the run's configuration, compared when the checkpoint is read.
        data_key: identifies the training data, compared when the checkpoint is read.
        state: tensors and primitives.

    Raises:
        UserError: the file cannot be written; the previous one is unchanged.
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
        # Given a path instead of a file, torch hides the reason of a failed write.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(document, file)
    except (OSError, RuntimeError) as error:
        # torch wraps file-system errors in a RuntimeError.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else error
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}; free some space or choose another folder"
        ) from error


class CheckpointWriter:
    """Writes checkpoints one after another, and calls back when each is on disk.

    With `in_background`, a thread writes a copy of the state during the next epoch, and a later `poll` calls
    back. An epoch is therefore never reported before a resume would continue after it.
    """

    def __init__(self, write: Callable[[Mapping[str, Any]], None], *, in_background: bool) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if in_background else None
        self._pending: tuple[Future[None], Callable[[], None]] | None = None
        self._waited_s = 0.0

    def save(self, state: Mapping[str, Any], *, on_saved: Callable[[], None]) -> None:
        """Write `state`; `on_saved` is called when it is on disk."""
        self.finish()
        if self._thread is None:
            self._timed(lambda: self._write(state))
            on_saved()
        else:
            copy = self._timed(lambda: _copy_to_cpu(state))
            self._pending = self._thread.submit(self._write, copy), on_saved

    def poll(self) -> None:
        """Call back for a checkpoint that has been written since the last call."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and call back."""
        if self._pending is None:
            return
        (written, on_saved), self._pending = self._pending, None
        self._timed(written.result)
        on_saved()

    def close(self) -> None:
        """Wait for the checkpoint that is being written, without calling back."""
        if self._thread is not None:
            self._thread.shutdown()

    def take_waited_s(self) -> float:
        """Return the wall seconds that the run has waited for checkpoints since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    def _timed(self, act: Callable[[], Result]) -> Result:
        began_s = time.monotonic()
        try:
            return act()
        finally:
            self._waited_s += time.monotonic() - began_s


def _copy_to_cpu(value: Any) -> Any:
    """Return a copy of a nested state with all tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copy_to_cpu(item) for key, item in value.items()}
    return [_copy_to_cpu(item) for item in value] if isinstance(value, list) else value


def load_checkpoint(folder: Path, *, config: RunConfig, data_key: str) -> dict[str, Any]:
    """Return the state in `folder`/last.pt, its tensors on the CPU.

    Raises:
        UserError: the file is damaged or foreign, or has another configuration, data key or schema version.
    """
    path = folder / LAST
    document = _read(path)
    written = json.loads(document["config"])
    asked = json.loads(config.model_dump_json())
    if written != asked:
        changes = "; ".join(_changes(written, asked))
        raise UserError(
            f"a run must resume with the configuration it began with, but {path} began with another: "
            f"{changes}. Change it back, or train into another folder"
        )
    if document["data_key"] != data_key:
        raise UserError(
            f"a run must resume with the data it began with, but {path} began with other images "
            f"({document['data_key']}, now {data_key}): use those, or train into another folder"
        )
    state: dict[str, Any] = document["state"]
    return state


def read_records(folder: Path) -> tuple[EpochRecord, ...]:
    """Return the epoch records in `folder`/last.pt; empty if there is no checkpoint.

    Raises:
        UserError: the checkpoint is damaged or foreign.
    """
    if not (folder / LAST).is_file():
        return ()
    return tuple(EpochRecord(**record) for record in _read(folder / LAST)["state"]["records"])


def _read(path: Path) -> dict[str, Any]:
    damaged = UserError(
        f"{path} is damaged or not a checkpoint of this platform (foreign objects are never loaded): "
        f"restore it from a copy, or remove it and start again"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise damaged
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}: nothing to resume from; leave out --resume") from None
    except _UNREADABLE:
        # torch's message recommends `weights_only=False`, which would execute code from the file.
        raise damaged from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise damaged
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {document.get('schema_version')!r}, but this program reads "
            f"{_SCHEMA_VERSION}: resume with the program version that wrote it"
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
