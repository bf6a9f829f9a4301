"""Compare the engine with onnxruntime, openvino and torch on one exported network.

    python -m benchmarks.peers [MODEL_FOLDER] [--threads 1] [--precision fp32,bf16,int8] [--json FILE]

The default model is the champion of the newest sweep under runs/. docs/engine.md explains the table. The
command requires the dependency group `peers`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.peers.output_formats import parse, table
from platform.common.command_line import option, parse_command_line
from platform.common.errors import UsageError, run_command

_ROOT = Path(__file__).resolve().parents[2]


def main(words: Sequence[str] | None = None, *, prog: str = "python -m benchmarks.peers") -> None:
    """Read the command line, compare, print the table."""
    parse_command_line(_command, prog=prog, words=words)


def _command(
    model_folder: Annotated[
        Path | None,
        tyro.conf.Positional,
        option("[MODEL_FOLDER]", default="the champion of the newest sweep"),
    ] = None,
    model: Annotated[Path | None, option("MODEL.pt", default="that of the folder's sweep")] = None,
    threads: Annotated[int, option("N", default="1")] = 1,
    precision: Annotated[str, option("PRECISIONS", default="fp32,bf16,int8")] = "fp32,bf16,int8",
    repetitions: Annotated[int, option("N", default="100")] = 100,
    json: Annotated[Path | None, option("FILE")] = None,
    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs"),
) -> None:
    """Compare the engine with other runtimes: same network, precision and threads, interleaved.

    Args:
        model_folder: an exported model.
        model: the trained model that it was exported from.
        threads: threads of one inference, for every runtime.
        precision: some of fp32,bf16,int8.
        repetitions: measured inferences per row.
        json: also write the record, with every repetition, to this file.
        runs: folder of the sweeps.
    """
    wanted = parse(precision)
    if not 1 <= threads <= 256 or repetitions < 1:
        raise UsageError(
            f"--threads takes 1 to 256 and --repetitions 1 or more; got {threads}, {repetitions}"
        )

    from benchmarks.peers.compare import compare
    from deploy.benchmark import newest_champion
    from platform.common.atomic import write_json

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
    run_command(main)
