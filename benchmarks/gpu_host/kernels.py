"""What the GPU's time goes to: the kernels of a step by name, number and time, eager and replayed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity
from torch.profiler import profile as Profiler  # noqa: N812 - `profile` is the step

from benchmarks.gpu_host.facts import Call
from benchmarks.gpu_host.runs import Case, Replay, Way, sizes, synchronize, train
from platform.training.acceleration.cuda_graph import WARM_UP_STEPS
from platform.training.distributed import pick_device

# The first whose pattern occurs in a kernel's name counts.
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
    """One kernel's share of a step."""

    name: str
    us: float
    calls: float


def profile(call: Call) -> None:
    """Note the kernels of a step of the largest case and of the one bound by their number."""
    size = sizes(tiny=call.tiny)
    for case in size.cases[1:]:
        for way in ("eager", "captured"):
            kernels, facts = _kernels_of(case, way, size.profiled_steps)
            call.note(
                "profile",
                **{key: facts[key] for key in ("model", "batch_size", "way", "precision", "warnings")},
                us=sum(kernel.us for kernel in kernels),
                calls=sum(kernel.calls for kernel in kernels),
                groups=grouped(kernels),
                kernels=[kernel._asdict() for kernel in kernels[:_ROWS]],
            )


def _kernels_of(case: Case, way: Way, steps: int) -> tuple[list[Kernel], dict[str, Any]]:
    """Profile steps after the warm-up and the first replay; returns kernels by time, and the run's facts."""
    on_gpu = pick_device().type == "cuda"
    profiler = Profiler(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])

    def watch(replay: Replay) -> Replay:
        seen = 0

        def profiled() -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                synchronize()
                profiler.start()
            replay()
            if seen == 1 + steps:
                synchronize()
                profiler.stop()

        return profiled

    batches = WARM_UP_STEPS + 1 + steps
    facts = train(case, images=batches * case.batch_size, epochs=1, way=way, watch=watch)
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
    """Return microseconds and calls of each group of kernels, the longest first."""
    groups: dict[str, dict[str, float]] = {}
    for kernel in kernels:
        found = (group for group, pattern in GROUPS if re.search(pattern, kernel.name, re.IGNORECASE))
        sums = groups.setdefault(next(found, "other"), {"us": 0.0, "calls": 0.0})
        sums["us"] += kernel.us
        sums["calls"] += kernel.calls
    return dict(sorted(groups.items(), key=lambda item: -item[1]["us"]))
