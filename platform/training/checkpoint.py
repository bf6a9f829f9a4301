"""The checkpoint of a run, `last.pt`: written atomically, verified when read.

The file is a torch archive of tensors and primitives. It is written under a temporary name, synced and
renamed, so that kill -9 at any time leaves the previous checkpoint intact. On reading, the CRC-32 checksums
written by torch are verified (torch itself does not), `weights_only=True` rejects foreign objects, and a
checkpoint of another configuration or other data is rejected.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from platform.common.errors import UserError
from platform.common.nested import differences
from platform.models.trained import read_torch_file, write_torch_file
from platform.training.config import RunConfig
from platform.training.records import EpochRecord
from platform.training.run_folder import LAST

_FORMAT = "resnet-sweep-platform/checkpoint"
_SCHEMA_VERSION = 1


def save_checkpoint(folder: Path, *, config: RunConfig, data_key: str, state: Mapping[str, Any]) -> None:
    """Write `folder`/last.pt; `config` and `data_key` are compared when it is read.

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
    write_torch_file(folder / LAST, document, name="checkpoint")


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
            with self._waiting():
                self._write(state)
            on_saved()
        else:
            with self._waiting():
                copy = copy_to_cpu(state)
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
        with self._waiting():
            written.result()
        on_saved()

    def close(self) -> None:
        """Wait for the checkpoint that is being written, without calling back."""
        if self._thread is not None:
            self._thread.shutdown()

    def take_waited_s(self) -> float:
        """Return the wall seconds that the run has waited for checkpoints since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        self._waited_s += time.monotonic() - began_s


def copy_to_cpu(value: Any) -> Any:
    """Return a copy of a nested state with all tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copy_to_cpu(item) for key, item in value.items()}
    return [copy_to_cpu(item) for item in value] if isinstance(value, list) else value


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
        changes = "; ".join(
            f"{name} was {json.dumps(old)}, is {json.dumps(new)}"
            for name, old, new in differences(written, asked)
        )
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
    try:
        document = read_torch_file(path)
    except UserError:
        document = None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UserError(
            f"{path} is damaged or not a checkpoint of this platform (foreign objects are never loaded): "
            f"restore it from a copy, or remove it and start again"
        )
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {document.get('schema_version')!r}, but this program reads "
            f"{_SCHEMA_VERSION}: resume with the program version that wrote it"
        )
    return document
