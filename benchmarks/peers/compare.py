"""The comparison: all runtimes in one process, taking turns, so that a disturbance meets them all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.fresh_start import measure
from benchmarks.peers.model_formats import Material, prepare
from benchmarks.peers.runtimes import Infer, Row, load, rows_for, version_of
from deploy.conversion.export_source import trained_model_of
from deploy.conversion.parity import compare as compare_logits

SCHEMA_VERSION = 1
PRECISIONS = ("fp32", "bf16", "int8")
BURST = 4
"""Measured inferences of one turn; one more before them finds its data in the caches again."""


def compare(
    model_folder: Path,
    model_pt: Path | None = None,
    *,
    threads: int = 1,
    precisions: Sequence[str] = PRECISIONS,
    repetitions: int = 100,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure ncnn and its peers on one network, one image at a time.

    Args:
        model_folder: an fp32 model folder, or one that stands beside it.
        model_pt: the trained model; by default that of the sweep the folder lies in.
        threads: of one inference, the same for every runtime.
        precisions: some of fp32, bf16, int8.
        repetitions: measured inferences of each row, at least.
        progress: told, in words, what is going on.

    Returns:
        `schema_version`, `benchmark`, `context`, `model`, `settings`, `results`: one mapping per row.

    Raises:
        UserError: a package is missing, or the folder and the trained model are not one network.
    """
    rows = rows_for(tuple(precisions))

    from platform.models.trained import load_trained_model
    from platform.tracking.provenance import collect

    model_path = model_pt or trained_model_of(model_folder)
    model = load_trained_model(model_path)
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        material = prepare(
            model_folder, model_path, model, scratch=Path(scratch), precisions=precisions, progress=progress
        )
        results = _measure_rows(rows, material, threads=threads, repetitions=repetitions, progress=progress)
    context = collect(packages=("torch", "ncnn", "onnx", "onnxruntime", "openvino", "numpy")).as_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "peers",
        "context": {**context, "load_average": _load_average(), "warnings": material.warnings},
        "model": {
            "name": material.fp32.document.name,
            "sha256": material.fp32.document.files["model.bin"].sha256,
            "test_accuracy": material.fp32.document.source.test_accuracy,
        },
        "settings": {
            "threads": threads,
            "batch": 1,
            "precisions": list(precisions),
            "repetitions": repetitions,
            "images": len(material.inputs),
            "images_label": material.images_label,
        },
        "results": with_ratios(results),
    }


def _measure_rows(
    rows: Sequence[Row],
    material: Material,
    *,
    threads: int,
    repetitions: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    # The fresh processes first: this one is still small, and no thread of it waits in a spin.
    starts = []
    for row in rows:
        progress(f"starting {row.name} {row.precision} in a process of its own")
        shape = material.inputs.shape[1:]
        starts.append(measure(row, material.path_for(row), threads=threads, input_shape=shape))
    nets: list[Infer] = []
    found = []
    for row, start in zip(rows, starts, strict=True):
        infer = load(row, material.path_for(row), threads=threads)
        logits = np.stack([infer(image[None]) for image in material.inputs])
        parity = asdict(compare_logits(material.reference, logits))
        nets.append(infer)
        found.append(
            {**asdict(row), "threads": threads, "version": version_of(row.runtime), "parity": parity, **start}
        )
    progress(f"measuring {len(rows)} networks in turns")
    wall, cpu = take_turns(nets, material.inputs[:1], repetitions=repetitions)
    for number, record in enumerate(found):
        record["repetitions"] = wall.shape[1]
        record["latency_ms"] = summary(wall[number])
        record["cpu_ms"] = summary(cpu[number])
        record["samples_ms"] = np.round(wall[number], 4).tolist()
    return found


def take_turns(
    nets: Sequence[Infer], image: NDArray[np.float32], *, repetitions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return wall and processor times in ms, each [nets, repetitions rounded up to whole turns].

    Processor time is that of the whole process: some runtimes compute in threads of their own.
    """
    rounds = -(-repetitions // BURST)
    wall = np.empty((len(nets), rounds * BURST))
    cpu = np.empty_like(wall)
    for turn in range(rounds):
        order = range(len(nets)) if turn % 2 == 0 else range(len(nets) - 1, -1, -1)
        for number in order:
            nets[number](image)
            for sample in range(turn * BURST, (turn + 1) * BURST):
                wall_begin, cpu_begin = time.perf_counter(), time.process_time()
                nets[number](image)
                cpu[number, sample] = 1e3 * (time.process_time() - cpu_begin)
                wall[number, sample] = 1e3 * (time.perf_counter() - wall_begin)
    return wall, cpu


def summary(times: NDArray[np.float64]) -> dict[str, float]:
    """Return min, p50 and p90."""
    p50, p90 = np.percentile(times, [50, 90])
    return {"min": float(times.min()), "p50": float(p50), "p90": float(p90)}


def with_ratios(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows; ncnn's with `ratio_to_best_peer`: its time over the best of the same precision.

    Below 1 ncnn is faster. By median processor time, which a busy machine changes least, and, more exposed,
    by median latency.
    """
    done = []
    for row in results:
        peers = [
            other
            for other in results
            if other["runtime"] != "ncnn" and other["precision"] == row["precision"]
        ]
        ratios = None
        if row["runtime"] == "ncnn" and peers:
            best = {kind: min(peers, key=lambda peer: peer[kind]["p50"]) for kind in ("cpu_ms", "latency_ms")}
            ratios = {
                kind: {
                    "ratio": row[kind]["p50"] / peer[kind]["p50"],
                    "peer": f"{peer['runtime']} {peer['variant']}".strip(),
                }
                for kind, peer in best.items()
            }
        done.append({**row, "ratio_to_best_peer": ratios})
    return done


def _load_average() -> list[float]:
    import os

    return [round(load, 2) for load in os.getloadavg()]
