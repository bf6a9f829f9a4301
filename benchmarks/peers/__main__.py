"""Compare ncnn with onnxruntime, openvino and torch on one exported network.

    python -m benchmarks.peers [MODEL_FOLDER] [--threads 1] [--precision fp32,bf16,int8] [--json FILE]

Without a folder, the champion of the newest sweep under runs/ is taken. docs/engine.md tells how to read the
table. Needs the dependency group `peers`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.peers.output_formats import parse, table
from platform.errors import UsageError, run_command

_ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Read the command line, compare, print the table."""
    run_command(lambda: tyro.cli(_command, prog="python -m benchmarks.peers"))


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

    from benchmarks.peers.compare import compare
    from deploy.benchmark import newest_champion
    from platform.atomic import write_json

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
