"""Compare ncnn with onnxruntime, openvino and torch on one exported network.

    python -m deploy.peers [MODEL_FOLDER] [--threads 1] [--precision fp32,bf16,int8] [--json FILE]

Without a folder, the champion of the newest sweep under runs/ is taken. docs/engine.md tells how to read the
table. Needs the dependency group `peers`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from platform.errors import UsageError, did_you_mean, run_command

_ROOT = Path(__file__).resolve().parents[2]


def table(record: Mapping[str, Any]) -> str:
    """Return a comparison's record as text."""
    context, settings = record["context"], record["settings"]
    plural = "s" * (settings["threads"] != 1)
    title = (
        f"{record['model']['name']}, one image at a time, {settings['threads']} thread{plural}, "
        f"{settings['repetitions']} repetitions in turns, on {context['cpu']}"
    )
    columns = ("min ms", "p50 ms", "p90 ms", "cpu ms", "max err", "top-1", "load ms", "RSS MiB")
    head = f"{'precision':<10}{'runtime':<21}" + "".join(f"{name:>9}" for name in columns)
    lines = [title, f"{head}  ncnn / best peer (cpu)"]
    for row in record["results"]:
        latency, parity, ratio = row["latency_ms"], row["parity"], row["ratio_to_best_peer"]
        cells = [f"{latency[key]:.3f}" for key in ("min", "p50", "p90")]
        cells += [
            f"{row['cpu_ms']['p50']:.3f}",
            f"{parity['max_abs']:.1e}",
            f"{parity['top1_agreement']:.1%}",
        ]
        cells += [f"{row['load_ms']:.0f}", f"{row['peak_rss_mb']:.0f}"]
        name = f"{row['runtime']} {row['variant']}".strip()
        line = f"{row['precision']:<10}{name:<21}" + "".join(f"{cell:>9}" for cell in cells)
        if ratio:
            line += f"  {ratio['cpu_ms']['ratio']:.2f} of {ratio['cpu_ms']['peer']}"
        lines.append(line)
    lines.append(
        f"max err and top-1: logits against PyTorch's in fp32, on {settings['images']} images "
        f"({settings['images_label']}). RSS: the whole process, Python with it."
    )
    lines += [f"warning: {warning}" for warning in context["warnings"]]
    return "\n".join(lines)


def parse(text: str) -> tuple[str, ...]:
    """Read `fp32,int8`.

    Raises:
        UsageError: one of them is not compared.
    """
    from deploy.peers.compare import PRECISIONS

    words = tuple(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in PRECISIONS:
            raise UsageError(
                f"--precision takes some of {','.join(PRECISIONS)}; got {word!r}"
                f"{did_you_mean(word, PRECISIONS)}"
            )
    return words


def main() -> None:
    """Read the command line, compare, print the table."""
    run_command(lambda: tyro.cli(_command, prog="python -m deploy.peers"))


def _command(
    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None,
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL.pt")] = None,
    threads: int = 1,
    precision: str = "fp32,bf16,int8",
    repetitions: int = 100,
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    runs: Path = Path("runs"),
) -> None:
    """Compare ncnn with other runtimes: same network, precision and threads, in one process, in turns.

    Args:
        model_folder: an exported model; by default the champion of the newest sweep.
        model: the trained model it was exported from; by default that of its sweep.
        threads: of one inference, for every runtime.
        precision: some of fp32,bf16,int8.
        repetitions: measured inferences of each row.
        json: also keep the record, with every repetition, in this file.
        runs: where sweeps are kept.
    """
    wanted = parse(precision)
    if not 1 <= threads <= 256 or repetitions < 1:
        raise UsageError(
            f"--threads takes 1 to 256 and --repetitions 1 or more; got {threads}, {repetitions}"
        )

    from deploy.latency import newest_champion
    from deploy.peers.compare import compare
    from platform.tracking.atomic import write_json

    record = compare(
        model_folder or newest_champion([runs, _ROOT / "runs"]),
        model,
        threads=threads,
        precisions=wanted,
        repetitions=repetitions,
        progress=lambda message: print(message, file=sys.stderr),
    )
    if json is not None:
        write_json(json, record)
    print(table(record))


if __name__ == "__main__":
    main()
