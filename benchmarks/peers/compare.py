"""Measure all runtimes interleaved in one process, so that a disturbance affects all of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.model_formats import PreparedModels, prepare_models
from benchmarks.peers.runtimes import Infer, Row, load, rows_for, version_of
from benchmarks.peers.startup_cost import measure_startup
from benchmarks.record import context
from deploy.conversion.export_source import trained_model_of
from deploy.conversion.parity import compare as compare_logits
from deploy.engine_build.engine_model import EngineModel
from deploy.model_files.model_folder import ModelPrecision

SCHEMA_VERSION = 2
PRECISIONS: tuple[ModelPrecision, ...] = ("fp32", "bf16", "int8")
BURST = 4
"""Measured inferences per turn, after one unmeasured inference that loads the caches."""


def compare(
    model_folder: Path,
    model_pt: Path | None = None,
    *,
    threads: int = 1,
    precisions: Sequence[ModelPrecision] = PRECISIONS,
    repetitions: int = 100,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the engine and its peers on one network, one image at a time.

    Args:
        model_folder: an fp32 model folder, or one in a lower precision next to it.
        model_pt: the trained model; default: that of the folder's sweep.
        threads: threads of one inference, for every runtime.
        precisions: some of fp32, bf16, int8.
        repetitions: minimum number of measured inferences per row.
        progress: called with progress messages.

    Returns:
        `schema_version`, `benchmark`, `context`, `models`, `settings`, `results`: one mapping per row.

    Raises:
        UserError: a package is missing, or the folder and the trained model are different networks.
    """
    rows = rows_for(tuple(precisions))

    from platform.models.trained import load_trained_model

    model_path = model_pt or trained_model_of(model_folder)
    model = load_trained_model(model_path)
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        prepared = prepare_models(
            model_folder, model_path, model, scratch=Path(scratch), precisions=precisions, progress=progress
        )
        results = _measure_rows(rows, prepared, threads=threads, repetitions=repetitions, progress=progress)
    packages = ("torch", "ncnn", "onnx", "onnxruntime", "openvino", "numpy")
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "peers",
        "context": {**context(packages=packages), "warnings": prepared.warnings},
        "models": [
            {
                "name": prepared.fp32.document.name,
                "sha256": prepared.fp32.document.files["model.bin"].sha256,
                "test_accuracy": prepared.fp32.document.source.test_accuracy,
            }
        ],
        "settings": {
            "threads": threads,
            "batch": 1,
            "precisions": list(precisions),
            "repetitions": repetitions,
            "images": len(prepared.inputs),
            "images_label": prepared.images_label,
        },
        "results": with_ratios(results),
    }


def _measure_rows(
    rows: Sequence[Row],
    prepared: PreparedModels,
    *,
    threads: int,
    repetitions: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    # Startup costs first, while this process has no spinning worker threads.
    starts = []
    for row in rows:
        progress(f"starting {row.name} {row.precision} in a new process")
        shape = prepared.inputs.shape[1:]
        starts.append(measure_startup(row, prepared.path_for(row), threads=threads, input_shape=shape))
    nets: list[Infer] = []
    found = []
    for row, start in zip(rows, starts, strict=True):
        infer = load(row, prepared.path_for(row), threads=threads)
        logits = np.stack([infer(image[None]) for image in prepared.inputs])
        parity = compare_logits(prepared.reference, logits)
        nets.append(infer)
        found.append(
            {
                "model": 0,
                **described(row, prepared.path_for(row)),
                "threads": threads,
                "version": version_of(row.runtime),
                "parity": parity.model_dump(exclude={"data", "reference"}),
                **start,
            }
        )
    progress(f"measuring {len(rows)} networks, interleaved")
    wall, cpu = interleave(nets, prepared.inputs[:1], repetitions=repetitions)
    for number, record in enumerate(found):
        record["repetitions"] = wall.shape[1]
        record["latency_ms"] = summary(wall[number])
        record["cpu_ms"] = summary(cpu[number])
        record["samples_ms"] = np.round(wall[number], 4).tolist()
    return found


def described(row: Row, path: Path) -> dict[str, Any]:
    """Return the row; the engine's variant is the library whose kernels run the network."""
    return {**asdict(row), **({"variant": EngineModel(path).kernels} if row.runtime == "engine" else {})}


def interleave(
    nets: Sequence[Infer], image: NDArray[np.float32], *, repetitions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return wall and processor times in ms, each [nets, repetitions rounded up to whole turns].

    Processor time is that of the whole process, since some runtimes use their own threads.
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
    """Return the rows with `ratio_to_best_peer`: time over the best peer's in the same precision.

    The engine is faster if the ratio is below 1. It is given for the median processor time, which a busy
    machine affects least, and for the median latency. It is None in other rows.
    """
    done = []
    for row in results:
        peers = [
            other
            for other in results
            if other["runtime"] != "engine" and other["precision"] == row["precision"]
        ]
        ratios = None
        if row["runtime"] == "engine" and peers:
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
