"""Choose the convolutions that use Winograd's transform by measurement on this machine.

The search starts from the rule of `deploy.winograd.rule` and toggles the transform for one group of layers at
a time. Layers of the same shape do the same work, and toggling all of them gives a difference above the
noise. A change is kept if it saves processor time; the result is kept only if it beats the rule at the end.

Times are thread CPU times, which a busy machine disturbs least. The compared nets run interleaved, so that
the remaining noise affects them equally.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.ncnn_net import INPUT_BLOB, OUTPUT_BLOB, load_net, options_for
from deploy.conversion.param_file import FEATURE_MASK, NO_WINOGRAD, WEIGHT_COUNT, Layer, ParamFile, parse
from deploy.model_files.model_folder import ModelDocument, ModelPrecision
from deploy.winograd.rule import Shapes, blob_shapes, is_3x3_stride_1, without_winograd
from platform.common.time_left import TimeLeft
from platform.tracking.provenance import cpu_name

SEARCH_ROUNDS = 8
FINAL_ROUNDS = 24
MAX_TIME_RATIO = 0.99
"""A change is kept if its time ratio is below this; smaller gains are within the noise."""

Ratio = Callable[[ParamFile, ParamFile, int], float]
"""(candidate, current, rounds) -> time of the candidate over that of the current network."""


@dataclass(frozen=True, kw_only=True)
class WinogradTuning:
    """A network tuned by measurement."""

    text: str
    """The `.param` file."""
    no_winograd: tuple[str, ...]
    """Names of the layers with the transform off."""
    ratio: float
    """Processor time relative to the network tuned by rule; 1 if the rule was kept."""

    def record(self) -> dict[str, object]:
        """Return the `tuning` entry of model.json."""
        return {
            "method": "measured",
            "no_winograd": self.no_winograd,
            "processor": processor_name(),
            "threads": 1,
            "ncnn": version("ncnn"),
            "time_ratio": round(self.ratio, 4),
        }


def tune_by_measurement(
    param_text: str,
    weights: Path,
    *,
    input_shape: tuple[int, int, int],
    precision: ModelPrecision,
    progress: Callable[[str], None] = lambda _: None,
    ratio: Ratio | None = None,
) -> WinogradTuning:
    """Tune each group of 3x3 convolutions by measurement; takes 5 to 20 seconds of one core for a ResNet-18.

    Args:
        param_text: a `.param` file written by `deploy.winograd.rule.tune_by_rule`.
        weights: the matching `.bin` file.
        input_shape: channels, height, width of the input.
        precision: the network's precision.
        progress: called with progress messages.
        ratio: compares two networks; default: by measurement on this machine.
    """
    start = parse(param_text)
    groups = group_layers_by_shape(start, blob_shapes(start, weights, input_shape=input_shape))
    if ratio is None:
        image = np.random.default_rng(0).standard_normal(input_shape).astype(np.float32)

        def ratio(candidate: ParamFile, current: ParamFile, rounds: int) -> float:
            nets = [_load(param, weights, precision) for param in (candidate, current)]
            times = cpu_times_ms([partial(run_inference, net, image) for net in nets], rounds=rounds)
            return float(np.median(times[0] / times[1]))

    off = _without(start)
    what = f"tuning {precision} on this machine"
    progress(what)
    meter = TimeLeft(what, len(groups), progress, unit="groups of layers")
    for number, group in enumerate(groups):
        meter.update(number)
        turned = off ^ group
        if (
            ratio(without_winograd(start, turned), without_winograd(start, off), SEARCH_ROUNDS)
            < MAX_TIME_RATIO
        ):
            off = turned
    gain = 1.0
    if off != _without(start):
        progress(f"tuning {precision}: comparing the result with the rule")
        gain = ratio(without_winograd(start, off), start, FINAL_ROUNDS)
        if gain >= MAX_TIME_RATIO:
            off, gain = _without(start), 1.0
    tuned = without_winograd(start, off)
    names = tuple(layer.name for layer in tuned.layers if layer.name in off)
    return WinogradTuning(text=tuned.text(), no_winograd=names, ratio=gain)


def group_layers_by_shape(param: ParamFile, shapes: Shapes) -> list[frozenset[str]]:
    """Return the names of the convolutions that may use the transform, by shape; most weights first."""
    groups: dict[tuple[int, int, tuple[int, ...]], set[str]] = {}
    for layer in filter(is_3x3_stride_1, param.layers):
        # The weight count comes first: the largest layers gain or lose most.
        key = (-layer.value(WEIGHT_COUNT), layer.value(0), shapes[layer.outputs[0]])
        groups.setdefault(key, set()).add(layer.name)
    return [frozenset(groups[key]) for key in sorted(groups)]


def tuning_warning(document: ModelDocument, *, processor: str | None = None) -> str | None:
    """Return a warning if the model was tuned on a processor other than this one, else None."""
    made_for = (document.tuning or {}).get("processor")
    here = processor or processor_name()
    if made_for is None or made_for == here:
        return None
    return (
        f"{document.name} ({document.precision}) was tuned on {made_for}, but this is {here}: it may run "
        "slower than possible; export it on this machine with --tune"
    )


def processor_name() -> str:
    """Return this processor's name, on x86 with its family and model.

    Virtual machines give several generations of processors the same name ("AMD EPYC"). The engine's
    `processor_name()` returns the same string.
    """
    numbers: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            numbers.setdefault(key.strip(), value.strip())
    name = cpu_name()
    if {"cpu family", "model"} <= numbers.keys():
        name += f" (family {numbers['cpu family']}, model {numbers['model']})"
    return name


def cpu_times_ms(
    work: Sequence[Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.thread_time,
) -> NDArray[np.float64]:
    """Return processor times in ms, [work, rounds], of interleaved callables.

    In each round each callable runs four times in a row; every second round is in reverse order. The first
    run, whose data is not in the caches, is discarded; the minimum of the others is recorded.
    """
    times = np.empty((len(work), rounds))
    for number in range(rounds):
        order = range(len(work)) if number % 2 == 0 else reversed(range(len(work)))
        for index in order:
            work[index]()
            least = np.inf
            for _ in range(3):
                begin = clock()
                work[index]()
                least = min(least, clock() - begin)
            times[index, number] = 1e3 * least
    return times


def run_inference(net: Any, image: NDArray[np.float32]) -> None:
    """Run one inference without copying the logits."""
    import ncnn

    extractor = net.create_extractor()
    extractor.input(INPUT_BLOB, ncnn.Mat(image).clone())
    extractor.extract(OUTPUT_BLOB)


def _load(param: ParamFile, weights: Path, precision: ModelPrecision) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.param")
        file.write_text(param.text(), encoding="utf-8")
        return load_net(file, weights, options_for(precision))


def _without(param: ParamFile) -> frozenset[str]:
    def off(layer: Layer) -> bool:
        return is_3x3_stride_1(layer) and bool(layer.value(FEATURE_MASK) & NO_WINOGRAD)

    return frozenset(layer.name for layer in param.layers if off(layer))
