"""Format benchmark records as a table, Markdown, CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

OutputFormat = Literal["table", "md", "csv", "json", "jsonl"]
Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column of the results."""

    name: str
    """In CSV, with all digits."""
    heading: str
    """In tables; empty: not shown."""
    value: Callable[[Row], Any]
    form: str = ""
    """Format of the numbers in tables; empty: text, aligned to the left."""

    def cell(self, row: Row) -> str:
        """Return the text of a table's cell."""
        value = self.value(row)
        return "-" if value is None else format(value, self.form)


def _key(name: str, heading: str, form: str = "", *, group: str = "", key: str = "") -> Column:
    return Column(name, heading, lambda row: (row[group] if group else row).get(key or name), form)


ENGINE_COLUMNS = (
    _key("scenario", "scenario"),
    _key("precision", "precision"),
    _key("kernels", "kernels"),
    _key("threads", "threads", "d"),
    _key("batch", "batch", "d"),
    _key("workers", "workers", "d"),
    *(
        _key(f"{kind}_ms", f"{kind} ms", ".3f", group="latency_ms", key=kind)
        for kind in ("min", "p50", "p90", "p99")
    ),
    _key("cpu_p50_ms", "cpu ms", ".3f", key="cpu_ms_p50"),
    _key("images_per_s", "images/s", ".1f"),
    _key("gflops", "GFLOP/s", ".0f"),
    _key("peak_gflops", "peak", ".0f"),
    _key("load_ms", "load ms", ".1f"),
    _key("first_inference_ms", "1st ms", ".2f"),
    _key("peak_rss_mb", "RSS MiB", ".1f"),
    _key("accuracy_top1", "top-1", ".4f"),
    _key("parity_max_abs", "max err", ".1e"),
    _key("parity_top1_agreement", ""),
    _key("repetitions", ""),
)


def engine_text(record: Mapping[str, Any], output: OutputFormat) -> str:
    """Format a record of the engine."""
    models, context = record["models"], record["context"]
    if output == "csv":
        name = Column("model", "", lambda row: models[row["model"]]["name"])
        return rows_text(record, (name, *ENGINE_COLUMNS), output)
    text = rows_text(record, ENGINE_COLUMNS, output)
    if output != "table":
        return text
    lines = [f"{models[0]['name']} on {context['cpu']}", text]
    for model in models:
        if found := model.get("accuracy"):
            counts = f"{found['correct']} of {found['images']} images"
            lines.append(f"accuracy in {model['precision']}: {found['top1']:.4f} ({counts})")
    lines += [f"warning: {warning}" for warning in context["warnings"]]
    noise = context["noise"]
    if not noise["trustworthy"]:
        lines.append(f"warning: the machine was busy ({noise['reason']}); the results are unreliable")
    return "\n".join(lines)


def rows_text(record: Mapping[str, Any], columns: Sequence[Column], output: OutputFormat) -> str:
    """Format the results of a record; JSON has the whole record, a JSON line its row, model and context."""
    rows = record["results"]
    if output == "json":
        return json.dumps(record, indent=2)
    if output == "jsonl":
        shared = {key: record[key] for key in ("schema_version", "context", "settings")}
        lines = ({**shared, "model": record["models"][row["model"]], "result": row} for row in rows)
        return "\n".join(map(json.dumps, lines))
    if output == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.name for column in columns)
        writer.writerows([column.value(row) for column in columns] for row in rows)
        return text.getvalue().rstrip("\n")
    shown = [column for column in columns if column.heading]
    cells = [[column.heading for column in shown], *([column.cell(row) for column in shown] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [
        [
            text.rjust(width) if column.form else text.ljust(width)
            for text, width, column in zip(line, widths, shown, strict=True)
        ]
        for line in cells
    ]
    if output == "table":
        return "\n".join("  ".join(line).rstrip() for line in aligned)
    rule = [
        "-" * (width - 1) + (":" if column.form else "-") for width, column in zip(widths, shown, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])
