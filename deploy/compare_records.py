"""Compare two benchmark records by the ratio of their median latencies, with a bootstrap interval.

Successive repetitions are correlated (a noisy neighbor stays for a while), so this is a block bootstrap. It
covers the noise within a run only: separate runs on a virtual machine differ by 10 to 20 %, hence the note
below every comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from platform.common.atomic import read_json
from platform.common.errors import UserError

RESAMPLES = 1000
CONFIDENCE = 0.95
WIDENED = 1.25
"""Factor that widens the interval, which is too narrow for few blocks: on synthetic series with an
intermittent neighbor it covered the true ratio 87 % of the time, and 93 to 96 % with this factor."""
_KEYS = ("runtime", "variant", "precision", "scenario", "threads", "batch", "workers")
_DEFAULTS = {"runtime": "engine", "scenario": "single-stream", "batch": 1, "workers": 1}


def comparison(a: Path, b: Path) -> dict[str, Any]:
    """Compare the rows that two records have in common.

    Returns:
        `schema_version`, `a`, `b`, `left_out`, `warnings` and `rows`, each with its configuration `what`, the
        `ratio` of b's median latency to a's, its `interval` and a `verdict`: faster, slower or not separated.

    Raises:
        UserError: a file is not a record, the networks differ, or no row is common to both.
    """
    records = [_read(a), _read(b)]
    names = [_network(record) for record in records]
    if names[0] != names[1]:
        raise UserError(
            f"{a} measured {names[0]}, {b} {names[1]}: only records of one network can be compared"
        )
    rows = [{_identity(row): row for row in record["results"]} for record in records]
    common = [key for key in rows[0] if key in rows[1]]
    if not common:
        measured = [", ".join(_words(key) for key in one) for one in rows]
        raise UserError(f"no configuration is in both records: {a} has {measured[0]}; {b} has {measured[1]}")
    left_out = [_words(key) for one, other in (rows, rows[::-1]) for key in one if key not in other]
    return {
        "schema_version": 1,
        "a": str(a),
        "b": str(b),
        "rows": [_compare(key, rows[0][key], rows[1][key]) for key in common],
        "left_out": left_out,
        "warnings": _warnings(records),
    }


def comparison_text(compared: Mapping[str, Any]) -> str:
    """Format a comparison as a table."""
    lines = [f"B = {compared['b']} against A = {compared['a']}: median latency of B over that of A"]
    lines.append(f"{'':<44}{'A ms':>9}{'B ms':>9}{'ratio':>8}  {CONFIDENCE:.0%} interval   B is")
    for row in compared["rows"]:
        low, high = row["interval"]
        lines.append(
            f"{row['what']:<44}{row['a_p50_ms']:>9.3f}{row['b_p50_ms']:>9.3f}{row['ratio']:>8.3f}  "
            f"{low:.3f} to {high:.3f}  {row['verdict']}"
        )
    if compared["left_out"]:
        lines.append(f"in one record only, not compared: {', '.join(compared['left_out'])}")
    lines += [f"warning: {warning}" for warning in compared["warnings"]]
    lines.append(
        "The interval covers the noise within each run. Separate runs differ by 10 to 20 % on a virtual "
        "machine: to detect smaller differences, measure both in one run."
    )
    return "\n".join(lines)


def bootstrap_ratio(
    a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the medians, b over a, and its block-bootstrap interval.

    Args:
        a: repetitions in the order they were measured, [n].
        b: the other record's repetitions, [m].
        seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    ratios = _medians(b, rng) / _medians(a, rng)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(ratios, [tail, 100 - tail])
    ratio = float(np.median(b) / np.median(a))
    return ratio, (float(ratio + WIDENED * (low - ratio)), float(ratio + WIDENED * (high - ratio)))


def _medians(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    length = max(1, round(2 * len(samples) ** 0.5))
    blocks = -(-len(samples) // length)
    starts = rng.integers(0, len(samples), (RESAMPLES, blocks, 1))
    # Blocks wrap around the end, so that every repetition is equally likely.
    drawn = samples[(starts + np.arange(length)) % len(samples)]
    medians: NDArray[np.float64] = np.median(drawn.reshape(RESAMPLES, -1), axis=1)
    return medians


def _compare(key: tuple[Any, ...], a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    samples = [np.array(row["samples_ms"], np.float64) for row in (a, b)]
    ratio, (low, high) = bootstrap_ratio(*samples)
    verdict = "faster" if high < 1 else "slower" if low > 1 else "not separated"
    return {
        "what": _words(key),
        "a_p50_ms": float(np.median(samples[0])),
        "b_p50_ms": float(np.median(samples[1])),
        "ratio": ratio,
        "interval": [low, high],
        "verdict": verdict,
    }


def _read(path: Path) -> dict[str, Any]:
    record = read_json(path, remedy="write a record with deploy/benchmark_ncnn --json FILE")
    rows = record.get("results")
    measured = isinstance(rows, list) and rows and all(row.get("samples_ms") for row in rows)
    if not (measured and record.get("models")):
        raise UserError(f"{path} is not a record of deploy/benchmark_ncnn; write one with --json FILE")
    return record


def _network(record: Mapping[str, Any]) -> str:
    model = record["models"][0]
    macs = model.get("macs")
    return f"{model['name']} ({macs / 1e6:.1f} M multiply-accumulates)" if macs else str(model["name"])


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) or _DEFAULTS.get(key, "") for key in _KEYS)


def _words(key: tuple[Any, ...]) -> str:
    runtime, variant, precision, scenario, threads, batch, workers = key
    words = [f"{runtime} {variant}".strip(), precision, scenario]
    for name, number in (("thread", threads), ("image", batch), ("worker", workers)):
        if number != 1:
            words.append(f"{number} {name}s")
    return " ".join(filter(None, words))


def _warnings(records: list[dict[str, Any]]) -> list[str]:
    found = []
    processors = [str(record["context"].get("cpu")) for record in records]
    if processors[0] != processors[1]:
        found.append(f"the processors differ: {processors[0]} and {processors[1]}")
    weights = [record["models"][0].get("sha256") for record in records]
    if weights[0] != weights[1]:
        found.append("the weights differ: the same architecture from another training or export")
    for letter, record in zip("AB", records, strict=True):
        noise = record["context"].get("noise") or {}
        if not noise.get("trustworthy", True):
            found.append(f"the machine was busy while {letter} was measured ({noise.get('reason')})")
    return found
