"""Profile the GPU kernels of a step, eager and captured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity
from torch.profiler import profile as Profiler  # noqa: N812 - `profile` is the step

from benchmarks.gpu_host.facts import StepRequest
from benchmarks.gpu_host.runs import Case, Replay, StepMode, sizes, train
from benchmarks.roofline import synchronize
from platform.training.acceleration.cuda_graph import WARM_UP_STEPS
from platform.training.distributed import pick_device

# A kernel is in the first group whose pattern matches its name.
GROUPS = (
    ("batch norm", r"batch_?norm|bn_fw|bn_bw"),
    ("convolution", r"cudnn|cutlass|xmma|implicit|wgrad|dgrad|fprop|conv|nhwc|nchw|gemm|im2col|cublas|nvjet"),
    ("foreach, optimizer", r"multi_tensor|foreach|fused_sgd|fused_adam|lpnorm"),
    ("index", r"index|gather|scatter"),
    ("reduction", r"reduce|softmax|nll|argmax"),
    ("copy, fill", r"memcpy|memset|fill|copy|cat"),
    ("elementwise", r"elementwise|vectorized|unrolled"),
)
_ROWS = 45


class Kernel(NamedTuple):
    """A kernel's time and calls per step."""

    name: str
    us: float
    calls: float


def profile(request: StepRequest) -> None:
    """Record the kernels of a step of the largest case and of the launch-bound case."""
    size = sizes(tiny=request.tiny)
    for case in size.cases[1:]:
        for mode in ("eager", "captured"):
            kernels, facts = _kernels_of(case, mode, size.profiled_steps)
            request.note(
                "profile",
                **{key: facts[key] for key in ("model", "batch_size", "way", "precision", "warnings")},
                us=sum(kernel.us for kernel in kernels),
                calls=sum(kernel.calls for kernel in kernels),
                groups=grouped(kernels),
                kernels=[kernel._asdict() for kernel in kernels[:_ROWS]],
            )


def _kernels_of(case: Case, mode: StepMode, steps: int) -> tuple[list[Kernel], dict[str, Any]]:
    """Profile steps after the warm-up and the first replay; return kernels by time, and the run's facts."""
    on_gpu = pick_device().type == "cuda"
    profiler = Profiler(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])

    def watch(replay: Replay) -> Replay:
        seen = 0

        def profiled() -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                synchronize(pick_device())
                profiler.start()
            replay()
            if seen == 1 + steps:
                synchronize(pick_device())
                profiler.stop()

        return profiled

    batches = WARM_UP_STEPS + 1 + steps
    facts = train(case, images=batches * case.batch_size, epochs=1, mode=mode, watch=watch)
    rows = profiler.key_averages()
    found = [
        Kernel(
            row.key,
            (row.self_device_time_total if on_gpu else row.self_cpu_time_total) / steps,
            row.count / steps,
        )
        for row in rows
    ]
    return sorted((kernel for kernel in found if kernel.us > 0), key=lambda kernel: -kernel.us), facts


def grouped(kernels: Sequence[Kernel]) -> dict[str, dict[str, float]]:
    """Return microseconds and calls of each group of kernels, by decreasing time."""
    groups: dict[str, dict[str, float]] = {}
    for kernel in kernels:
        found = (group for group, pattern in GROUPS if re.search(pattern, kernel.name, re.IGNORECASE))
        sums = groups.setdefault(next(found, "other"), {"us": 0.0, "calls": 0.0})
        sums["us"] += kernel.us
        sums["calls"] += kernel.calls
    return dict(sorted(groups.items(), key=lambda item: -item[1]["us"]))
