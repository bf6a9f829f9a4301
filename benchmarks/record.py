"""The JSON record that every benchmark writes.

    {"schema_version": 1, "benchmark": "training", "context": {...}, "settings": {...}, "results": [...]}

`context` has the provenance (commit, versions, hardware, command) and the machine's load at the start.
`results` has every repetition, not only the summary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from platform.common.atomic import write_text
from platform.common.errors import UserError
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
    """Return the provenance and the load averages of one, five and fifteen minutes."""
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
    """Return the record of one benchmark run.

    Args:
        benchmark: its name, as in `python -m benchmarks.NAME`.
        where: the value of `context()` at the start of the measurement.
        settings: settings of the measurement.
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
    """Write `record` atomically to `path`, or to stdout for `-`.

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
    """Return the heading of a table: machine, versions, load."""
    gpus = ", ".join(where["gpus"]) or "no GPU"
    commit = (where["git_commit"] or "no commit")[:10] + ("+" if where["git_dirty"] else "")
    load = where["load_average"]
    busy = f", load {load[0]:.1f}" if load else ""
    torch = where["versions"].get("torch", "?")
    when = f"{commit}; {where['started_at']}{busy}"
    return f"{where['cpu']}, {where['cores']} cores, {gpus}; torch {torch}; {when}"
