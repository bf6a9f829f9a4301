"""Benchmark exported models with the C++ engine; `deploy/benchmark_ncnn` runs this.

    deploy/benchmark_ncnn [MODEL_FOLDER] [--precision fp32,int8] [--threads 1,2] [--batch 1,8] [--workers 1,2]
    deploy/benchmark_ncnn [MODEL_FOLDER] --peers               beside onnxruntime, openvino and torch
    deploy/benchmark_ncnn --compare A.json B.json              is B faster than A?

Without a folder, the champion of the newest sweep under runs/ is measured, in every precision it ships in.
"""

from __future__ import annotations

import json as json_text
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from platform.errors import UsageError, UserError, run_command

_ROOT = Path(__file__).resolve().parent.parent

Form = Literal["table", "md", "csv", "json", "jsonl"]


def newest_champion(roots: Sequence[Path]) -> Path:
    """Return the model folder of the newest sweep that has exported its champion.

    Args:
        roots: folders that hold sweeps; the first with an export wins.

    Raises:
        UserError: no sweep has one.
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
    """Read `1,2,4`.

    Raises:
        UsageError: it is something else.
    """
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= highest for number in numbers):
        raise UsageError(f"{flag} takes whole numbers from 1 to {highest}, as in 1,2; got {text!r}")
    return numbers


def folders_to_measure(folder: Path, precision: str | None) -> list[Path]:
    """Return `folder`, or its siblings of the precisions named (`fp32,int8`), in that order.

    Raises:
        UsageError: one of them is no precision.
        UserError: there is no such sibling, or it holds another network.
    """
    from deploy.export import parse_precisions
    from deploy.model_files.precision_folders import sibling

    if precision is None:
        return [folder]
    return [sibling(folder, wanted) for wanted in parse_precisions(precision)]


def record_text(record: Mapping[str, Any], form: Literal["json", "jsonl"]) -> str:
    """Return a record as JSON, or a line of JSON per row, each with its model and the context."""
    if form == "json":
        return json_text.dumps(record, indent=2)
    shared = {key: record[key] for key in ("schema_version", "context", "settings")}
    lines = []
    for row in record["results"]:
        model = record["models"][row["model"]] if "models" in record else record["model"]
        lines.append(json_text.dumps({**shared, "model": model, "result": row}))
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print the results."""
    run_command(lambda: tyro.cli(_command, prog="deploy/benchmark_ncnn"))


def _command(
    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None,
    precision: str | None = None,
    threads: str = "1",
    batch: str = "1",
    workers: str = "1",
    warmup: int = 10,
    repetitions: int = 200,
    min_time_s: float = 1.0,
    accuracy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    peers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    compare: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A.json B.json")] = None,
    model: Annotated[Path | None, tyro.conf.arg(metavar="MODEL.pt")] = None,
    output: Annotated[Form, tyro.conf.arg(aliases=["-o"])] = "table",
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    runs: Path = Path("runs"),
) -> None:
    """Measure exported models on this machine with the C++ engine, built first if needed.

    Every precision runs with every combination of threads, batch and workers; all take turns. Scenarios have
    MLPerf's names: single-stream (one image after the other), multi-stream (a batch of several), offline
    (several workers).

    Args:
        model_folder: a folder with model.json; by default the champion of the newest sweep.
        precision: some of fp32,fp16,bf16,int8: the exports that lie beside the folder, as in export-int8; by
            default the folder's own (of the newest champion: every one there is).
        threads: threads of one inference, as in 1,2.
        batch: images of one query, computed together, as in 1,8.
        workers: threads that share the model, each with queries of its own, as in 1,2.
        warmup: unmeasured queries of each configuration, at least; more until its median settles.
        repetitions: measured queries of each, at least.
        min_time_s: measured seconds of each, at least.
        accuracy: also count the right answers on the test images of the data the model was trained on, and
            compare with PyTorch's logits if the trained model is found.
        peers: measure ncnn beside onnxruntime, openvino and torch (dependency group `peers`), in one process,
            single-stream.
        compare: say whether the second of two records (--json) is faster than the first; nothing is measured.
        model: with --peers or --accuracy: the trained model; by default that of the folder's sweep.
        output: what stdout gets.
        json: also keep the record, with every repetition, in this file.
        runs: where sweeps are kept.
    """
    if compare is not None:
        from deploy.compare_records import comparison, comparison_text

        found = comparison(*compare)
        print(record_text(found, "json") if output in ("json", "jsonl") else comparison_text(found))
        return
    thread_counts = parse_numbers("--threads", threads)
    batches = parse_numbers("--batch", batch, 4096)
    worker_counts = parse_numbers("--workers", workers)
    folder = model_folder or newest_champion([runs, _ROOT / "runs"])
    if peers:
        if max(*batches, *worker_counts, len(thread_counts)) > 1 or accuracy:
            raise UsageError(
                "--peers measures one image at a time, with one number of threads: give neither --batch nor "
                "--workers nor --accuracy, and --threads one number"
            )
        _peers(folder, model, precision, thread_counts[0], repetitions, output, json)
        return
    if model_folder is None and precision is None:
        from deploy.model_files.precision_folders import siblings

        folders = [folder, *siblings(folder, warn=_say).values()]
    else:
        folders = folders_to_measure(folder, precision)

    from deploy.engine_build.engine import run_benchmark

    with ExitStack() as stack:
        images = logits = None
        if accuracy:
            from deploy.benchmark_inputs import write_questions

            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="questions-")))
            images, logits = write_questions(folder, model, scratch, progress=_say)
        text: list[str] = []
        record = run_benchmark(
            *folders,
            threads=thread_counts,
            batches=batches,
            workers=worker_counts,
            json_path=json,
            warmup=warmup,
            repetitions=repetitions,
            min_time_s=min_time_s,
            images=images,
            logits=logits,
            form=output if output in ("md", "csv") else "table",
            tell=text.append,
            progress=_say,
        )
    print(record_text(record, output) if output in ("json", "jsonl") else text[0].rstrip("\n"))


def _peers(
    folder: Path,
    model: Path | None,
    precision: str | None,
    threads: int,
    repetitions: int,
    form: Form,
    json: Path | None,
) -> None:
    try:
        from benchmarks.peers.compare import PRECISIONS, compare
        from benchmarks.peers.output_formats import parse, rows_text, table
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--peers needs {error.name}: run it in a checkout of the project, after make setup"
        ) from None
    from platform.atomic import write_json

    record = compare(
        folder,
        model,
        threads=threads,
        precisions=PRECISIONS if precision is None else parse(precision),
        repetitions=repetitions,
        progress=_say,
    )
    if json is not None:
        write_json(json, record)
    if form == "table":
        print(table(record))
    elif form == "md" or form == "csv":
        print(rows_text(record, form))
    else:
        print(record_text(record, form))


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
