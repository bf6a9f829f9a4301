"""The file of what was found: one JSON object a line, on disk before the next measurement begins.

The command and its steps append to the same file, and a step may be killed at any moment: a line cut off then
is left out, the others stay.
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
"""`kind` and what belongs to it; the kinds are those of `benchmarks.gpu_host.table`."""


def append(path: Path, kind: str, **values: Any) -> None:
    """Add one fact and wait until it is on disk; numbers that are not finite become null."""
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
    """Return the facts so far, without a line that was cut off."""
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
class Call:
    """What a step is called with; JSON by `dataclasses.asdict`."""

    facts: str
    """The file that gets what it finds."""
    limit_s: float
    """Seconds after which it is killed."""
    tiny: bool = False
    """Tiny sizes, on a CPU too."""
    data_dir: str | None = None
    """Where CIFAR-10 is; None: `$CIFAR10_DIR`, else the cache."""

    def note(self, kind: str, **values: Any) -> None:
        """Append a fact."""
        append(Path(self.facts), kind, **values)
