"""Format a comparison's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.record_text import Column, OutputFormat, Row, rows_text


def _ratio(row: Row) -> float | None:
    return row["ratio_to_best_peer"]["cpu_ms"]["ratio"] if row["ratio_to_best_peer"] else None


def _best_peer(row: Row) -> str:
    return f"{_ratio(row):.2f} of {row['ratio_to_best_peer']['cpu_ms']['peer']}" if _ratio(row) else ""


COLUMNS = (
    Column("precision", "precision", lambda row: row["precision"]),
    Column("runtime", "runtime", lambda row: f"{row['runtime']} {row['variant']}".strip()),
    Column("min_ms", "min ms", lambda row: row["latency_ms"]["min"], ".3f"),
    Column("p50_ms", "p50 ms", lambda row: row["latency_ms"]["p50"], ".3f"),
    Column("p90_ms", "p90 ms", lambda row: row["latency_ms"]["p90"], ".3f"),
    Column("cpu_p50_ms", "cpu ms", lambda row: row["cpu_ms"]["p50"], ".3f"),
    Column("parity_max_abs", "max err", lambda row: row["parity"]["max_abs"], ".1e"),
    Column("parity_top1_agreement", "top-1", lambda row: row["parity"]["top1_agreement"], ".1%"),
    Column("load_ms", "load ms", lambda row: row["load_ms"], ".0f"),
    Column("peak_rss_mb", "RSS MiB", lambda row: row["peak_rss_mb"], ".0f"),
    Column("cpu_ratio_to_best_peer", "", _ratio),
    Column("best_peer", "engine / best peer (cpu)", _best_peer),
)


def comparison_text(record: Mapping[str, Any], output: OutputFormat) -> str:
    """Format the record of `benchmarks.peers.compare.compare`."""
    text = rows_text(record, COLUMNS, output)
    if output != "table":
        return text
    context, settings = record["context"], record["settings"]
    plural = "s" * (settings["threads"] != 1)
    title = (
        f"{record['models'][0]['name']}, one image at a time, {settings['threads']} thread{plural}, "
        f"{settings['repetitions']} interleaved repetitions, on {context['cpu']}"
    )
    note = (
        f"max err and top-1: logits against PyTorch's in fp32, on {settings['images']} images "
        f"({settings['images_label']}). RSS: the whole process, including Python."
    )
    warnings = [f"warning: {warning}" for warning in context["warnings"]]
    return "\n".join([title, text, note, *warnings])
