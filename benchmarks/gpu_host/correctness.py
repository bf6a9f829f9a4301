"""Check that the host can run the trainer, and that captured and eager steps give equal losses."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platform
from benchmarks.gpu_host.facts import StepRequest

NEEDED = ("torch", "torchvision", "numpy", "pyarrow", "pydantic", "PIL", "psutil", "ruamel.yaml", "pytest")
MODULES = ("platform.training.loop", "benchmarks.training", "benchmarks.time_to_accuracy")
_ROOT = Path(__file__).parents[2]
_CAPTURE_TESTS = _ROOT / "tests" / "training" / "acceleration" / "test_cuda_graph.py"
# Relative tolerance of an epoch's loss; in fp32 that of the capture tests. bf16 has 8 bits of precision.
TOLERANCES = {"fp32": 1e-3, "bf16": 2e-2}


def environment(request: StepRequest) -> None:
    """Record versions, GPU, failed imports and data set; convert the data set into the cache."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "standard_platform_first": Path(platform.__file__ or "").name == "platform.py",
    }
    failed: dict[str, str] = {}
    versions: dict[str, Any] = {}
    for name in (*NEEDED, *MODULES):
        try:
            versions[name] = getattr(importlib.import_module(name), "__version__", None)
        except Exception as error:  # noqa: BLE001 - any error is a result here
            failed[name] = repr(error)[:300]
    try:
        from benchmarks.gpu_host.accuracy import data_set

        found["data"] = data_set(request).label
    except Exception as error:  # noqa: BLE001 - as above
        failed["data"] = " ".join(str(error).split())[:300]
    found |= {"versions": {name: versions.get(name) for name in NEEDED}, "failed": failed}
    if "torch" in versions:
        found |= _device()
    request.note("environment", **found)
    if failed:
        sys.exit("; ".join(f"{name}: {error}" for name, error in failed.items()))


def _device() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None}
    return {
        "gpu": torch.cuda.get_device_name(0),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1),
    }


class _Outcomes:
    """A pytest plugin that counts outcomes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.outcome == "failed":
                self.failed.append(report.nodeid)


def capture_tests(request: StepRequest) -> None:
    """Run the tests of the captured step, including those that require a GPU."""
    import pytest

    outcomes = _Outcomes()
    # Ignore the project's configuration: it requires plugins that the host lacks, and turns warnings of
    # other torch versions into failures.
    bare = ["-c", os.devnull, f"--rootdir={_ROOT}", "--import-mode=importlib", "-p", "no:cacheprovider"]
    code = pytest.main([*bare, "-q", "-ra", str(_CAPTURE_TESTS)], plugins=[outcomes])
    request.note("capture_tests", counts=dict(outcomes.counts), failed=outcomes.failed)
    sys.exit(code)


def equality(request: StepRequest) -> None:
    """Compare the losses of a captured run and two eager runs, in bf16 and fp32."""
    from benchmarks.gpu_host.runs import StepMode, sizes, train

    modes: tuple[StepMode, ...] = ("captured", "eager", "eager")
    unequal = []
    size = sizes(tiny=request.tiny)
    for case in size.cases:
        for precision in ("auto", "fp32"):
            # Epochs of two steps locate the first difference; the second step reads other rows.
            facts = [
                train(
                    case,
                    images=2 * case.batch_size,
                    epochs=size.equality_epochs,
                    mode=mode,
                    precision=precision,
                )
                for mode in modes
            ]
            losses = [[epoch["train_loss"] for epoch in each["epochs"]] for each in facts]
            captured = facts[0]
            compared = compare(*losses, tolerance=TOLERANCES[captured["precision"]])
            shared = {
                key: captured[key] for key in ("model", "batch_size", "precision", "captured", "warnings")
            }
            request.note(
                "equality",
                **shared,
                **compared,
                losses=dict(zip(("captured", "eager", "again"), losses, strict=True)),
            )
            if not (compared["equal"] and captured["captured"]):
                unequal.append(f"{case.model} at {case.batch_size} in {captured['precision']}")
    if unequal:
        sys.exit(f"captured and eager steps differ, or the capture failed: {', '.join(unequal)}")


def compare(
    captured: Sequence[float], eager: Sequence[float], again: Sequence[float], *, tolerance: float
) -> dict[str, Any]:
    """Return the differences between captured and eager losses, and between two eager runs.

    Returns:
        `worst` and `worst_of_itself`: largest relative difference from the captured and from the second eager
        run; `first_apart`: first epoch (from 1) with unequal captured and eager losses, or None; `equal`:
        whether `worst` is within the tolerance.
    """

    def worst(others: Sequence[float]) -> float:
        return max(abs(one - other) / abs(one) for one, other in zip(eager, others, strict=True))

    apart = [number for number, (a, b) in enumerate(zip(captured, eager, strict=True), start=1) if a != b]
    return {
        "worst": worst(captured),
        "worst_of_itself": worst(again),
        "first_apart": apart[0] if apart else None,
        "tolerance": tolerance,
        "equal": worst(captured) <= tolerance,
    }
