"""A captured step: nothing in it waits for the device, and a replay knows by the device alone where it is.

CUDA graphs need a GPU. Here a stand-in keeps what a capture keeps, the host's numbers of one moment, and does
what a replay does: the same work on the same places, again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from platform.data.training_data import TrainingData
from platform.training import loop, step
from platform.training.acceleration import cuda_graph
from platform.training.acceleration.cuda_graph import WARM_UP_STEPS, capture_for, on_side_stream
from platform.training.config import RunConfig
from platform.training.distributed import World, single
from platform.training.inputs.augment import TrainingTable
from platform.training.loop import fit
from platform.training.records import RunResult

ConfigOf = Callable[..., RunConfig]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"schedule": {"name": "triangular"}},
    "everything": {
        "augment": {"cutout": {"length": 8}, "mixup": 0.4, "cutmix": 1.0},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        "schedule": {"name": "plateau", "patience_epochs": 1, "threshold": 0.9, "factor": 0.5},
        "label_smoothing": 0.1,
        "ema_decay": 0.5,
        "clip_grad_norm": 1.0,
    },
    "adamw by pixel": {
        "optimizer": {"name": "adamw", "lr": 0.01},
        "data": {"name": "generated", "normalization": "pixel"},
        "schedule": {"name": "one_cycle"},
    },
}


def run(config: RunConfig, data: TrainingData, **more: Any) -> RunResult:
    return fit(config, data, world=single("cpu"), checkpoint_dir=None, **more)


def numbers(result: RunResult) -> list[tuple[float | None, ...]]:
    return [(e.lr, e.train_loss, e.train_accuracy, e.validation_loss, e.grad_norm) for e in result.epochs]


class StandIn:
    """Captures as a CUDA graph does: without doing anything, and with the host's numbers of the moment."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            work()

        return replay


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_replays_of_one_capture_train_as_uncaptured_steps_do(
    config_of: ConfigOf,
    data: TrainingData,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    accumulate: int,
) -> None:
    # 72 images: two whole batches and one of 8 in each epoch.
    config = config_of(epochs=5, **changes)
    plain = run(config, data, accumulate=accumulate)
    stand_in = StandIn()
    monkeypatch.setattr(loop, "capture_for", lambda *_: stand_in)
    captured = run(config, data, accumulate=accumulate)
    assert numbers(captured) == numbers(plain)
    assert (stand_in.captures, stand_in.replays) == (1, 2 * 5 - WARM_UP_STEPS)


class WaitingError(Exception):
    """Something asked the device for a value."""


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU."""

    WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.item", "aten.masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Indexing by a mask has to count it first.
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype is torch.bool for index in args[1]
        )
        if by_mask or str(func).startswith(self.WAITS):
            raise WaitingError(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_no_step_waits_for_the_device(
    config_of: ConfigOf,
    data: TrainingData,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    def watching(work: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            with NoWaiting():
                work()

        return replay

    monkeypatch.setattr(loop, "capture_for", lambda *_: watching)
    run(config_of(epochs=3, **changes), data)


def test_the_watch_sees_a_wait() -> None:
    with pytest.raises(WaitingError), NoWaiting():
        torch.zeros(1).item()
    with pytest.raises(WaitingError), NoWaiting():
        torch.zeros(3)[torch.ones(3, dtype=torch.bool)]


def test_what_cannot_be_captured_is_told_and_trained_all_the_same(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(config_of(), data)

    def fail(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(loop, "capture_for", lambda *_: fail)
    with pytest.warns(UserWarning, match="could not be captured as a CUDA graph.*not permitted"):
        result = run(config_of(), data)
    assert numbers(result) == numbers(plain)


class Streams:
    """Stands in for `torch.cuda`: which stream is current, and a graph whose capture cannot be ended."""

    class CUDAGraph:
        def replay(self) -> None:
            """Do nothing."""

    class Stream:
        def __init__(self, device: int) -> None:
            self.device_index = device

        def wait_stream(self, other: "Streams.Stream") -> None:
            assert other is not self

    def __init__(self, *, capture_fails: bool = False) -> None:
        self.callers = self.current = Streams.Stream(0)
        self.capture_fails = capture_fails
        self.synchronized = 0

    def current_device(self) -> int:
        return 0

    def current_stream(self, device: object = None) -> Stream:
        return self.current

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def synchronize(self) -> None:
        self.synchronized += 1

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: object, *, stream: Stream, **_: object) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        if self.capture_fails:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.current = before


@pytest.fixture
def _no_side_stream_yet() -> Iterator[None]:
    cuda_graph._side_stream.cache_clear()
    yield
    cuda_graph._side_stream.cache_clear()


@pytest.mark.usefixtures("_no_side_stream_yet")
def test_warm_ups_and_the_capture_share_one_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, seen = Streams(), []
    monkeypatch.setattr(torch, "cuda", cuda)
    for _ in range(WARM_UP_STEPS):
        on_side_stream(torch.device("cuda"), lambda: seen.append(cuda.current))
    cuda_graph.cuda_graph(lambda: seen.append(cuda.current))
    assert len(seen) == WARM_UP_STEPS + 1
    assert {id(stream) for stream in seen} == {id(seen[0])} != {id(cuda.callers)}
    assert cuda.current is cuda.callers


@pytest.mark.usefixtures("_no_side_stream_yet")
def test_a_failed_capture_gives_the_stream_back_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, work = Streams(capture_fails=True), []
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(cuda_graph, "_failed", threading.Event())
    with pytest.raises(RuntimeError, match="previous error during capture"):
        cuda_graph.cuda_graph(lambda: work.append(1))
    assert cuda.current is cuda.callers
    assert cuda.synchronized == 1
    assert cuda_graph.capture_has_failed()
    with pytest.raises(RuntimeError, match="an earlier capture failed in this process"):
        cuda_graph.cuda_graph(lambda: work.append(2))
    assert work == [1]


def test_cudnn_is_enabled_in_a_step_and_the_callers_flags_come_back(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.backends.cudnn.flags` disables cuDNN by default, which no result on a CPU shows."""
    cudnn, seen = torch.backends.cudnn, []
    take = step._train_step

    def watched(*arguments: Any, **more: Any) -> Any:
        seen.append((cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return take(*arguments, **more)

    monkeypatch.setattr(step, "_train_step", watched)
    with cudnn.flags(enabled=True, deterministic=False, benchmark=True):
        run(config_of(epochs=1), data)
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (
            True,
            False,
            True,
            True,
        )
    assert seen == [(True, True, False, False)] * 3


def test_progress_is_told_when_its_numbers_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that takes two steps to arrive: the step that is told is the one it was asked for at."""
    monkeypatch.setattr(step, "TICK_S", 0.0)
    arrived = iter([False, False, True, True])
    monkeypatch.setattr(step, "_read_later", lambda sums: (sums, lambda: next(arrived)))
    told: list[int] = []
    ticker = step.Ticker(lambda done, _sums: told.append(done))
    for done in (1, 2, 3):
        ticker.step_ended(done, step.EpochSums.zeros(4, torch.device("cpu")))
    assert told == [1]
    ticker.step_ended(4, step.EpochSums.zeros(4, torch.device("cpu")))
    assert told == [1, 4]


def test_the_host_stays_within_so_many_steps_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is never through with anything unless it is waited for."""
    monkeypatch.setattr(step, "MOST_STEPS_AHEAD", 8)
    host, device, furthest = 0, 0, 0

    def mark() -> Callable[[], None]:
        here = host

        def wait() -> None:
            nonlocal device
            device = here

        return wait

    lead = step.Lead(mark)
    for _ in range(50):
        host += 1
        lead.step_ended()
        furthest = max(furthest, host - device)
    assert furthest == 7


def test_a_run_on_a_gpu_waits_for_its_steps_before_an_error_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def synchronize(device: torch.device) -> None:
        done.append("synchronized")
        raise RuntimeError("CUDA error")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    checkpoints = SimpleNamespace(finish=fail, close=lambda: done.append("closed"))
    a_run: Any = SimpleNamespace(
        _world=World(rank=0, size=1, device=torch.device("cuda")), _train=fail, _checkpoints=checkpoints
    )
    with pytest.raises(KeyboardInterrupt):
        loop._Run.train(a_run, print, print)
    assert done == ["synchronized", "closed"]


@pytest.fixture
def table(data: TrainingData, config_of: ConfigOf) -> TrainingTable:
    return TrainingTable(data.train, data.normalization, config_of().augment, device=torch.device("cpu"))


def test_one_gpu_with_its_images_on_it_captures_and_nothing_else(table: TrainingTable) -> None:
    def world(device: str, size: int = 1) -> World:
        return World(rank=0, size=size, device=torch.device(device))

    assert capture_for(table, world("cuda")) is cuda_graph.cuda_graph
    assert capture_for(table, world("cuda", size=2)) is None
    assert capture_for(table, world("cpu")) is None


# Another version of torch may warn of something else; that is not what this test is about.
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_on_a_gpu_a_cuda_graph_trains_as_the_steps_one_by_one(
    config_of: ConfigOf,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    precision: str,
    tolerance: float,
) -> None:
    config = config_of(epochs=4, precision=precision, **changes)
    captured = fit(config, data, world=single("cuda"), checkpoint_dir=None)
    monkeypatch.setattr(loop, "capture_for", lambda *_: None)
    plain = fit(config, data, world=single("cuda"), checkpoint_dir=None)
    assert (captured.captured, plain.captured) == (True, False)
    for one, other in zip(captured.epochs, plain.epochs, strict=True):
        assert one.lr == other.lr
        assert one.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=10 * tolerance)
