"""Which convolutions of a network use Winograd's transform, measured on the machine at hand.

Starts from the rule of `deploy.winograd.rule` and toggles the transform for one kind of layer at a time:
layers of the same shape do the same work, and all of them at once make a difference that stands out of the
noise. A change stays if it saves processor time. The result is kept only if it beats the rule at the end.

Time is that of this thread on a core, which a busy machine disturbs least; the nets under comparison take
turns, so that what disturbance is left meets them alike.
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
from deploy.model_files.model_folder import ModelDocument, Precision
from deploy.winograd.rule import Shapes, blob_shapes, is_3x3_stride_1, without_winograd
from platform.tracking.provenance import cpu_name

SEARCH_ROUNDS = 8
FINAL_ROUNDS = 24
WORTH = 0.99
"""A change must bring the time below so many times what it was: less is within the noise."""

Ratio = Callable[[ParamFile, ParamFile, int], float]
"""(candidate, current, rounds) -> time of the candidate over that of the current network."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A network as the measurement wants it."""

    text: str
    """The `.param` file."""
    no_winograd: tuple[str, ...]
    """The layers that do without the transform."""
    ratio: float
    """Processor time over that of the network by the rule; 1 when the rule was kept."""

    def record(self) -> dict[str, object]:
        """Return what model.json says under `tuning`."""
        return {
            "method": "measured",
            "no_winograd": self.no_winograd,
            "processor": processor_here(),
            "threads": 1,
            "ncnn": version("ncnn"),
            "time_ratio": round(self.ratio, 4),
        }


def tune_here(
    param_text: str,
    weights: Path,
    *,
    input_shape: tuple[int, int, int],
    precision: Precision,
    progress: Callable[[str], None] = lambda _: None,
    ratio: Ratio | None = None,
) -> Tuned:
    """Choose for each kind of 3x3 convolution by measurement; 5 to 20 seconds of one core for a ResNet-18.

    Args:
        param_text: the `.param` file as `deploy.winograd.rule.tune` left it.
        weights: the `.bin` file that fits it.
        input_shape: channels, height, width of the input.
        precision: what the network computes in.
        progress: told, in words, what is going on.
        ratio: how two networks are compared; by default on this machine.
    """
    start = parse(param_text)
    kinds = kinds_of_layer(start, blob_shapes(start, weights, input_shape=input_shape))
    if ratio is None:
        image = np.random.default_rng(0).standard_normal(input_shape).astype(np.float32)

        def ratio(candidate: ParamFile, current: ParamFile, rounds: int) -> float:
            nets = [_load(param, weights, precision) for param in (candidate, current)]
            times = cpu_times_ms([partial(infer, net, image) for net in nets], rounds=rounds)
            return float(np.median(times[0] / times[1]))

    off = _without(start)
    for number, kind in enumerate(kinds, 1):
        progress(f"tuning {precision}: kind {number} of {len(kinds)}, {len(kind)} layers")
        turned = off ^ kind
        if ratio(without_winograd(start, turned), without_winograd(start, off), SEARCH_ROUNDS) < WORTH:
            off = turned
    gain = 1.0
    if off != _without(start):
        progress(f"tuning {precision}: the choice against the rule")
        gain = ratio(without_winograd(start, off), start, FINAL_ROUNDS)
        if gain >= WORTH:
            off, gain = _without(start), 1.0
    tuned = without_winograd(start, off)
    names = tuple(layer.name for layer in tuned.layers if layer.name in off)
    return Tuned(text=tuned.text(), no_winograd=names, ratio=gain)


def kinds_of_layer(param: ParamFile, shapes: Shapes) -> list[frozenset[str]]:
    """Return the names of the convolutions that may use the transform, by shape; most weights first."""
    kinds: dict[tuple[int, int, tuple[int, ...]], set[str]] = {}
    for layer in filter(is_3x3_stride_1, param.layers):
        # The first key sorts: what has most weights loses or gains most.
        key = (-layer.value(WEIGHT_COUNT), layer.value(0), shapes[layer.outputs[0]])
        kinds.setdefault(key, set()).add(layer.name)
    return [frozenset(kinds[key]) for key in sorted(kinds)]


def tuned_elsewhere(document: ModelDocument, *, processor: str | None = None) -> str | None:
    """Return a warning if the model was tuned on another processor than this one, else nothing."""
    made_for = (document.tuning or {}).get("processor")
    here = processor or processor_here()
    if made_for is None or made_for == here:
        return None
    return (
        f"{document.name} ({document.precision}) was tuned on {made_for}, this is {here}: it may run slower "
        "than it could; export it here with --tune"
    )


def processor_here() -> str:
    """Return this processor's name, on x86 with its family and model.

    Virtual machines call processors of several generations by one name ("AMD EPYC"). The engine's
    `processor_name()` says the same.
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
    """Return processor times in ms, [work, rounds], of callables that take turns.

    In each round each one runs four times in a row, every second round in reverse order. The first run, which
    finds its neighbor's data in the caches, does not count; of the others the least does.
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


def infer(net: Any, image: NDArray[np.float32]) -> None:
    """Run one inference and leave the logits where they are."""
    import ncnn

    extractor = net.create_extractor()
    extractor.input(INPUT_BLOB, ncnn.Mat(image).clone())
    extractor.extract(OUTPUT_BLOB)


def _load(param: ParamFile, weights: Path, precision: Precision) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.param")
        file.write_text(param.text(), encoding="utf-8")
        return load_net(file, weights, options_for(precision))


def _without(param: ParamFile) -> frozenset[str]:
    def off(layer: Layer) -> bool:
        return is_3x3_stride_1(layer) and bool(layer.value(FEATURE_MASK) & NO_WINOGRAD)

    return frozenset(layer.name for layer in param.layers if off(layer))
