"""Benchmark a model folder with the C++ engine; `deploy/benchmark_ncnn` runs this.

    deploy/benchmark_ncnn [MODEL_FOLDER] [--threads 1,2] [--json FILE]

Without a folder, the champion of the newest sweep under runs/ is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from platform.errors import UsageError, UserError, run_command

_ROOT = Path(__file__).resolve().parent.parent


def newest_champion(roots: Sequence[Path]) -> Path:
    """Return the model folder of the newest sweep that has exported its champion.

    Args:
        roots: folders that hold sweeps; the first with an export wins.

    Raises:
        UserError: no sweep has one.
    """
    from platform.tracking.folder import all_sweeps

    for root in roots:
        for sweep in reversed(all_sweeps(root)):
            if (sweep.export / "model.json").is_file():
                return sweep.export
    raise UserError(
        f"no sweep under {roots[0].absolute()} has exported a champion yet; make one with: "
        "python -m platform.sweep resnet18_cifar --quick, or name a model folder"
    )


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,2,4`.

    Raises:
        UsageError: it is something else.
    """
    try:
        threads = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        threads = ()
    if not threads or not all(1 <= number <= 256 for number in threads):
        raise UsageError(f"--threads takes whole numbers from 1 to 256, as in 1,2; got {text!r}")
    return threads


def latency_table(record: Mapping[str, Any]) -> str:
    """Return a benchmark's record as text."""
    model, context = record["model"], record["context"]
    lines = [f"{model['name']}, {model['precision']}, one image at a time, on {context['cpu']}"]
    columns = (
        "threads",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "min ms",
        "images/s",
        "load ms",
        "first ms",
        "RSS MiB",
    )
    lines.append("".join(f"{name:>10}" for name in columns))
    for row in record["results"]:
        latency = row["latency_ms"]
        values = [f"{latency[key]:.3f}" for key in ("p50", "p90", "p99", "min")]
        values += [f"{row['images_per_s']:.1f}", f"{row['load_ms']:.1f}", f"{row['first_inference_ms']:.2f}"]
        cells = [str(row["threads"]), *values, f"{row['peak_rss_mb']:.1f}"]
        lines.append("".join(f"{cell:>10}" for cell in cells))
    if accuracy := record.get("accuracy"):
        lines.append(
            f"top-1 {accuracy['top1']:.2%}: {accuracy['correct']} of {accuracy['images']} test images, in C++"
        )
    elif model.get("test_accuracy") is not None:
        lines.append(f"top-1 on the test set, measured when it was trained: {model['test_accuracy']:.2%}")
    noise = context["noise"]
    if not noise["trustworthy"]:
        lines.append(f"The machine was busy ({noise['reason']}): do not trust these figures.")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print the table."""
    run_command(lambda: tyro.cli(_command, prog="deploy/benchmark_ncnn"))


def _command(
    model_folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL_FOLDER")] = None,
    threads: str = "1",
    warmup: int = 10,
    repetitions: int = 200,
    min_time_s: float = 1.0,
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    runs: Path = Path("runs"),
) -> None:
    """Measure a model's latency on this machine with the C++ engine, built first if needed.

    Args:
        model_folder: a folder with model.json; by default the champion of the newest sweep.
        threads: threads of one inference; several, as in 1,2, are measured in turn.
        warmup: unmeasured inferences of each.
        repetitions: measured inferences of each, at least.
        min_time_s: measured seconds of each, at least.
        json: also keep the record, with every repetition, in this file.
        runs: where sweeps are kept.
    """
    wanted = parse_threads(threads)
    folder = model_folder or newest_champion([runs, _ROOT / "runs"])

    from deploy.engine import run_benchmark

    record = run_benchmark(
        folder,
        threads=wanted,
        json_path=json,
        warmup=warmup,
        repetitions=repetitions,
        min_time_s=min_time_s,
    )
    print(latency_table(record))


if __name__ == "__main__":
    main()
