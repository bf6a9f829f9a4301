"""Append-only file of results: one JSON object per line, synced to disk before the next measurement.

The command and its steps append to the same file. A step may be killed while writing: readers skip
a truncated line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record

Fact = dict[str, Any]
"""`kind` and the fields of that kind; `benchmarks.gpu_host.table` lists the kinds."""


def append(path: Path, kind: str, **values: Any) -> None:
    """Append one fact and sync it to disk; nonfinite numbers become null."""
    fact = json.loads(json.dumps({"kind": kind, **values}), parse_constant=lambda _: None)
    data = (json.dumps(fact) + "\n").encode()
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Fact]:
    """Return the facts so far; skip truncated lines."""
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


def document(facts: Sequence[Fact]) -> dict[str, Any]:
    """Return the benchmark's record: the first fact is the context, all others are results."""
    first, *results = facts
    return record.document("gpu_host", first["context"], first["settings"], results)


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """Arguments of a step; serialized to JSON by `dataclasses.asdict`."""

    facts: str
    """File to append results to."""
    limit_s: float
    """Time limit in seconds, after which the step is killed."""
    tiny: bool = False
    """Use tiny sizes, on a CPU too."""
    data_dir: str | None = None
    """Folder of CIFAR-10; None: `$CIFAR10_DIR`, else the cache."""

    def note(self, kind: str, **values: Any) -> None:
        """Append a fact."""
        append(Path(self.facts), kind, **values)
