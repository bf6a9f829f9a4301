"""Format a comparison's record as plain text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Literal

from platform.common.errors import UsageError, did_you_mean


def table(record: Mapping[str, Any]) -> str:
    """Format the record as a plain-text table."""
    context, settings = record["context"], record["settings"]
    plural = "s" * (settings["threads"] != 1)
    title = (
        f"{record['model']['name']}, one image at a time, {settings['threads']} thread{plural}, "
        f"{settings['repetitions']} interleaved repetitions, on {context['cpu']}"
    )
    columns = ("min ms", "p50 ms", "p90 ms", "cpu ms", "max err", "top-1", "load ms", "RSS MiB")
    head = f"{'precision':<10}{'runtime':<21}" + "".join(f"{name:>9}" for name in columns)
    lines = [title, f"{head}  engine / best peer (cpu)"]
    for row in record["results"]:
        cells = _shown(row)
        line = f"{cells[0]:<10}{cells[1]:<21}" + "".join(f"{cell:>9}" for cell in cells[2:-1])
        lines.append(f"{line}  {cells[-1]}".rstrip())
    lines.append(
        f"max err and top-1: logits against PyTorch's in fp32, on {settings['images']} images "
        f"({settings['images_label']}). RSS: the whole process, including Python."
    )
    lines += [f"warning: {warning}" for warning in context["warnings"]]
    return "\n".join(lines)


def rows_text(record: Mapping[str, Any], form: Literal["md", "csv"]) -> str:
    """Format the rows as a Markdown table, or as CSV with all digits."""
    rows = record["results"]
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(_plain(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_plain, rows))
        return text.getvalue().rstrip("\n")
    head = (
        "precision | runtime | min ms | p50 ms | p90 ms | cpu ms | max err | top-1 | load ms | RSS MiB | "
        "engine / best peer (cpu)"
    )
    lines = [f"| {head} |", "| --- | --- |" + " ---: |" * 8 + " --- |"]
    return "\n".join(lines + [f"| {' | '.join(_shown(row))} |" for row in rows])


def parse(text: str) -> tuple[str, ...]:
    """Parse comma-separated precisions such as `fp32,int8`.

    Raises:
        UsageError: the comparison does not support a precision.
    """
    from benchmarks.peers.compare import PRECISIONS

    words = tuple(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in PRECISIONS:
            raise UsageError(
                f"--precision takes some of {','.join(PRECISIONS)}; got {word!r}"
                f"{did_you_mean(word, PRECISIONS)}"
            )
    return words


def _shown(row: Mapping[str, Any]) -> list[str]:
    latency, parity, ratio = row["latency_ms"], row["parity"], row["ratio_to_best_peer"]
    return [
        row["precision"],
        f"{row['runtime']} {row['variant']}".strip(),
        *(f"{latency[key]:.3f}" for key in ("min", "p50", "p90")),
        f"{row['cpu_ms']['p50']:.3f}",
        f"{parity['max_abs']:.1e}",
        f"{parity['top1_agreement']:.1%}",
        f"{row['load_ms']:.0f}",
        f"{row['peak_rss_mb']:.0f}",
        f"{ratio['cpu_ms']['ratio']:.2f} of {ratio['cpu_ms']['peer']}" if ratio else "",
    ]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a row to single values, without its repetitions."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("latency_ms", "cpu_ms", "parity"):
            flat |= {f"{key.removesuffix('_ms')}_{name}": one for name, one in value.items()}
        elif not isinstance(value, (list, Mapping)) and value is not None:
            flat[key] = value
    ratio = row["ratio_to_best_peer"]
    flat["cpu_ratio_to_best_peer"] = ratio["cpu_ms"]["ratio"] if ratio else None
    return flat
