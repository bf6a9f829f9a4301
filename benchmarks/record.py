"""What every benchmark writes: one JSON document that says where its numbers come from.

    {"schema_version": 1, "benchmark": "training", "context": {...}, "settings": {...}, "results": [...]}

`context` is the provenance of the program's runs (commit, versions, hardware, command) with the load of the
machine when the measurement began. `results` keeps every repetition, not only what was made of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from platform.atomic import write_text
from platform.errors import UserError
from platform.tracking.provenance import collect

SCHEMA_VERSION = 1
PACKAGES = (
    "resnet-sweep-platform",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "ncnn",
    "onnxruntime",
    "openvino",
)


def context(*, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return where and when: provenance, the load of one, five and fifteen minutes."""
    found = collect(packages=packages).as_dict()
    found["load_average"] = None
    with suppress(OSError, AttributeError):
        found["load_average"] = [round(load, 2) for load in os.getloadavg()]
    return found


def document(
    benchmark: str,
    where: Mapping[str, Any],
    settings: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the record of one call of a benchmark.

    Args:
        benchmark: its name, as in `python -m benchmarks.NAME`.
        where: what `context` returned when the measurement began.
        settings: what was measured, as asked or chosen.
        results: one mapping per row of the table.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": benchmark,
        "context": dict(where),
        "settings": dict(settings),
        "results": [dict(result) for result in results],
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` to `path`, whole or not at all; `-` is the screen.

    Raises:
        UserError: the file cannot be written.
    """
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        print(text, end="")
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write the record {path}: {error.strerror or error}; give another --json"
        ) from None


def describe(where: Mapping[str, Any]) -> str:
    """Return one line for the head of a table: machine, versions, load."""
    gpus = ", ".join(where["gpus"]) or "no GPU"
    commit = (where["git_commit"] or "no commit")[:10] + ("+" if where["git_dirty"] else "")
    load = where["load_average"]
    busy = f", load {load[0]:.1f}" if load else ""
    torch = where["versions"].get("torch", "?")
    when = f"{commit}; {where['started_at']}{busy}"
    return f"{where['cpu']}, {where['cores']} cores, {gpus}; torch {torch}; {when}"
