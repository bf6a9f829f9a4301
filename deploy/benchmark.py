"""Benchmark exported models with the C++ engine; `deploy/benchmark_ncnn` runs this.

    deploy/benchmark_ncnn [MODEL_FOLDER] [--precision fp32,int8] [--threads 1,2] [--batch 1,8] [--workers 1,2]
    deploy/benchmark_ncnn [MODEL_FOLDER] --peers               compare with onnxruntime, openvino and torch
    deploy/benchmark_ncnn --compare A.json B.json              compare two records

The default model is the champion of the newest sweep under runs/, in every precision it was exported in.
"""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from deploy.record_text import OutputFormat, engine_text
from platform.common.atomic import write_json
from platform.common.command_line import Flag, option, parse_command_line
from platform.common.errors import UsageError, UserError, run_command

_ROOT = Path(__file__).resolve().parent.parent


def newest_champion(roots: Sequence[Path]) -> Path:
    """Return the model folder of the newest sweep that has exported its champion.

    Args:
        roots: folders that hold sweeps; the first with an export wins.

    Raises:
        UserError: no sweep has an exported champion.
    """
    from platform.tracking.sweep_folder import all_sweeps

    for root in roots:
        for sweep in reversed(all_sweeps(root)):
            if (sweep.export / "model.json").is_file():
                return sweep.export
    raise UserError(
        f"no sweep under {roots[0].absolute()} has exported a champion yet; make one with: "
        "python -m platform.sweep resnet18_cifar --quick, or name a model folder"
    )


def parse_numbers(flag: str, text: str, highest: int = 256) -> tuple[int, ...]:
    """Parse comma-separated whole numbers such as `1,2,4`.

    Raises:
        UsageError: `text` is not a list of whole numbers from 1 to `highest`.
    """
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= highest for number in numbers):
        raise UsageError(f"{flag} takes whole numbers from 1 to {highest}, as in 1,2; got {text!r}")
    return numbers


def folders_to_measure(folder: Path, precision: str | None) -> list[Path]:
    """Return `folder`, or the folders of its network in the precisions named (`fp32,int8`), in that order.

    Raises:
        UsageError: an unknown precision.
        UserError: a precision was not exported, or its folder holds another network.
    """
    from deploy.export import parse_precisions
    from deploy.model_files.precision_folders import find_precision_folder

    if precision is None:
        return [folder]
    return [find_precision_folder(folder, wanted) for wanted in parse_precisions(precision)]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure exported models on this machine with the C++ engine, which is built first if needed.

    Every precision runs with every combination of threads, batch and workers, interleaved. The scenarios are
    named as in MLPerf: single-stream (one image at a time), multi-stream (batches of several images), offline
    (several workers).
    """

    model_folder: Annotated[
        Path | None,
        tyro.conf.Positional,
        option("[MODEL_FOLDER]", default="the champion of the newest sweep"),
    ] = None
    """A folder with model.json."""
    precision: Annotated[
        str | None,
        option("PRECISIONS", default="that of MODEL_FOLDER, or all exports of the newest sweep"),
    ] = None
    """Some of fp32,fp16,bf16,int8: the exports next to the folder, such as export-int8."""
    threads: Annotated[str, option("N,...", default="1")] = "1"
    """Threads of one inference, as in 1,2."""
    batch: Annotated[str, option("N,...", default="1")] = "1"
    """Images per query, computed together, as in 1,8."""
    workers: Annotated[str, option("N,...", default="1")] = "1"
    """Threads that share the model, each with its own queries, as in 1,2."""
    kernels: Annotated[
        Literal["auto", "ncnn", "onednn"], option(default="auto: oneDNN if the model was tuned for it here")
    ] = "auto"
    """Library whose kernels run the networks."""
    warmup: Annotated[int, option("N", default="10")] = 10
    """Minimum number of unmeasured queries per configuration; more run until the median settles."""
    repetitions: Annotated[int, option("N", default="200")] = 200
    """Minimum number of measured queries per configuration."""
    min_time_s: Annotated[float, option("SECONDS", default="1")] = 1.0
    """Minimum measured time per configuration."""
    accuracy: Flag = False
    """Also measure top-1 accuracy on the test images of the model's data set, and compare with PyTorch's
    logits if the trained model is found."""
    peers: Flag = False
    """Compare the engine with onnxruntime, openvino and torch (dependency group `peers`) in one process,
    single-stream."""
    compare: Annotated[tuple[Path, Path] | None, option("A.json B.json")] = None
    """Compare two records (--json) instead of measuring: is the second faster than the first?"""
    model: Annotated[Path | None, option("MODEL.pt", default="that of the folder's sweep")] = None
    """With --peers or --accuracy: the trained model."""
    output: Annotated[OutputFormat, option(default="table", short="-o")] = "table"
    """Format of the results on stdout."""
    json: Annotated[Path | None, option("FILE")] = None
    """Also write the record, with every repetition, to this file."""
    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs")
    """Folder of the sweeps."""


def main(words: Sequence[str] | None = None, *, prog: str = "deploy/benchmark_ncnn") -> int:
    """Read the command line, measure, print the results."""
    _run(parse_command_line(Arguments, prog=prog, words=words))
    return 0


def _run(arguments: Arguments) -> None:
    if arguments.compare is not None:
        print(_compare(*arguments.compare, arguments.output))
        return
    threads = parse_numbers("--threads", arguments.threads)
    batches = parse_numbers("--batch", arguments.batch, 4096)
    workers = parse_numbers("--workers", arguments.workers)
    folder = arguments.model_folder or newest_champion([arguments.runs, _ROOT / "runs"])
    if arguments.peers:
        if max(*batches, *workers, len(threads)) > 1 or arguments.accuracy or arguments.kernels != "auto":
            raise UsageError(
                "--peers measures one image at a time with one number of threads: omit --batch, --workers, "
                "--kernels and --accuracy, and give --threads one number"
            )
        print(_compare_with_peers(folder, threads[0], arguments))
        return
    if arguments.model_folder is None and arguments.precision is None:
        from deploy.model_files.precision_folders import find_lower_precisions

        folders = [folder, *find_lower_precisions(folder, warn=_say).values()]
    else:
        folders = folders_to_measure(folder, arguments.precision)

    from deploy.engine_build.engine import run_benchmark

    images = None
    if arguments.accuracy:
        from deploy.benchmark_accuracy import add_accuracy, load_test_images

        images = load_test_images(folder, arguments.model, progress=_say)
    record = run_benchmark(
        *folders,
        threads=threads,
        batches=batches,
        workers=workers,
        kernels=arguments.kernels,
        warmup=arguments.warmup,
        repetitions=arguments.repetitions,
        min_time_s=arguments.min_time_s,
        progress=_say,
    )
    if images is not None:
        add_accuracy(record, folders, *images, kernels=arguments.kernels, progress=_say)
    if arguments.json is not None:
        write_json(arguments.json, record)
    print(engine_text(record, arguments.output))


def _compare(a: Path, b: Path, output: OutputFormat) -> str:
    from deploy.compare_records import comparison, comparison_text

    compared = comparison(a, b)
    return json_text.dumps(compared, indent=2) if output in ("json", "jsonl") else comparison_text(compared)


def _compare_with_peers(folder: Path, threads: int, arguments: Arguments) -> str:
    try:
        from benchmarks.peers.compare import PRECISIONS, compare
        from benchmarks.peers.output_formats import comparison_text
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--peers needs {error.name}: run it in a checkout of the project, after make setup"
        ) from None
    from deploy.export import parse_precisions

    wanted = PRECISIONS if arguments.precision is None else parse_precisions(arguments.precision, PRECISIONS)
    record = compare(
        folder,
        arguments.model,
        threads=threads,
        precisions=wanted,
        repetitions=arguments.repetitions,
        progress=_say,
    )
    if arguments.json is not None:
        write_json(arguments.json, record)
    return comparison_text(record, arguments.output)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
