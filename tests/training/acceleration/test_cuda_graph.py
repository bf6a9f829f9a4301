"""Captured steps: they do not synchronize with the device, and a replay uses only device values.

CUDA graphs need a GPU. On a CPU, a fake capture keeps the Python values of the captured step, and a fake
replay runs the same work with the same tensors again.
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
from platform.training.distributed import World, single
from platform.training.inputs.augment import DeviceTrainingSet
from platform.training.loop import fit
from tests.training.examples import ConfigOf, numbers, run

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


class FakeCapture:
    """Captures like a CUDA graph: without executing the work, and with the Python values of the call."""

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
def test_replayed_steps_equal_uncaptured_steps(
    config_of: ConfigOf,
    data: TrainingData,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    accumulate: int,
) -> None:
    # 72 images: two full batches and one of 8 per epoch.
    config = config_of(epochs=5, **changes)
    plain = run(config, data, accumulate=accumulate)
    capture = FakeCapture()
    monkeypatch.setattr(loop, "capture_for", lambda *_: capture)
    captured = run(config, data, accumulate=accumulate)
    assert numbers(captured) == numbers(plain)
    assert (capture.captures, capture.replays) == (1, 2 * 5 - WARM_UP_STEPS)


class SynchronizationError(Exception):
    """An operation synchronized with the device."""


class NoSynchronization(TorchDispatchMode):
    """Raises an error for operations that make the host wait for a GPU."""

    SYNCHRONIZING = (
        "aten._local_scalar_dense",
        "aten.nonzero",
        "aten.is_nonzero",
        "aten.item",
        "aten.masked_select",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Indexing by a mask must count its elements first.
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype is torch.bool for index in args[1]
        )
        if by_mask or str(func).startswith(self.SYNCHRONIZING):
            raise SynchronizationError(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_steps_do_not_synchronize_with_the_device(
    config_of: ConfigOf,
    data: TrainingData,
    small_network: None,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    def watching(work: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            with NoSynchronization():
                work()

        return replay

    monkeypatch.setattr(loop, "capture_for", lambda *_: watching)
    run(config_of(epochs=3, **changes), data)


def test_no_synchronization_detects_synchronizing_operations() -> None:
    with pytest.raises(SynchronizationError), NoSynchronization():
        torch.zeros(1).item()
    with pytest.raises(SynchronizationError), NoSynchronization():
        torch.zeros(3)[torch.ones(3, dtype=torch.bool)]


def test_a_failed_capture_warns_and_continues_uncaptured(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(config_of(), data)

    def fail(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(loop, "capture_for", lambda *_: fail)
    with pytest.warns(UserWarning, match="could not be captured as a CUDA graph.*not permitted"):
        result = run(config_of(), data)
    assert numbers(result) == numbers(plain)


class FakeCuda:
    """A fake `torch.cuda`: tracks the current stream, and can fail to end a capture."""

    class CUDAGraph:
        def replay(self) -> None:
            """Do nothing."""

    class Stream:
        def __init__(self, device: int) -> None:
            self.device_index = device

        def wait_stream(self, other: "FakeCuda.Stream") -> None:
            assert other is not self

    def __init__(self, *, capture_fails: bool = False) -> None:
        self.callers = self.current = FakeCuda.Stream(0)
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
def test_warm_up_steps_and_capture_use_the_same_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, seen = FakeCuda(), []
    monkeypatch.setattr(torch, "cuda", cuda)
    for _ in range(WARM_UP_STEPS):
        on_side_stream(torch.device("cuda"), lambda: seen.append(cuda.current))
    cuda_graph.cuda_graph(lambda: seen.append(cuda.current))
    assert len(seen) == WARM_UP_STEPS + 1
    assert {id(stream) for stream in seen} == {id(seen[0])} != {id(cuda.callers)}
    assert cuda.current is cuda.callers


@pytest.mark.usefixtures("_no_side_stream_yet")
def test_a_failed_capture_restores_the_stream_and_is_not_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, work = FakeCuda(capture_fails=True), []
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


def test_cudnn_is_enabled_in_steps_and_the_callers_flags_are_restored(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.backends.cudnn.flags` disables cuDNN by default, which does not affect results on a CPU."""
    cudnn, seen = torch.backends.cudnn, []
    train_step = step.StepRunner._train_step

    def watched(*arguments: Any) -> Any:
        seen.append((cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return train_step(*arguments)

    monkeypatch.setattr(step.StepRunner, "_train_step", watched)
    with cudnn.flags(enabled=True, deterministic=False, benchmark=True):
        run(config_of(epochs=1), data)
        assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (
            True,
            False,
            True,
            True,
        )
    assert seen == [(True, True, False, False)] * 3


def test_progress_is_reported_when_the_copy_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy arrives two steps later; the reported step is the one at which it was started."""
    monkeypatch.setattr(step, "REPORT_INTERVAL_S", 0.0)
    arrived = iter([False, False, True, True])
    monkeypatch.setattr(step.StepMetrics, "copy_to_host", lambda metrics: (metrics, lambda: next(arrived)))
    reported: list[int] = []
    reporter = step.ProgressReporter(lambda done, _: reported.append(done))
    for done in (1, 2, 3):
        reporter.step_ended(done, step.StepMetrics.zeros(4, torch.device("cpu")))
    assert reported == [1]
    reporter.step_ended(4, step.StepMetrics.zeros(4, torch.device("cpu")))
    assert reported == [1, 4]


def test_the_host_runs_at_most_max_steps_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake device makes progress only when the host waits for it."""
    monkeypatch.setattr(step, "MAX_STEPS_AHEAD", 8)
    host, device, furthest = 0, 0, 0

    def record_event() -> Callable[[], None]:
        here = host

        def wait() -> None:
            nonlocal device
            device = here

        return wait

    run_ahead = step.RunAheadLimit(record_event)
    for _ in range(50):
        host += 1
        run_ahead.step_ended()
        furthest = max(furthest, host - device)
    assert furthest == 7


def test_a_gpu_run_synchronizes_before_it_raises_an_error(
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
        _world=World(rank=0, size=1, device=torch.device("cuda")),
        _train_epochs=fail,
        _checkpoints=checkpoints,
    )
    with pytest.raises(KeyboardInterrupt):
        loop._TrainingRun.train(a_run)
    assert done == ["synchronized", "closed"]


@pytest.fixture
def training_set(data: TrainingData, config_of: ConfigOf) -> DeviceTrainingSet:
    return DeviceTrainingSet(data.train, data.normalization, config_of().augment, device=torch.device("cpu"))


def test_steps_are_captured_only_on_one_gpu_with_images_on_the_device(
    training_set: DeviceTrainingSet,
) -> None:
    def world(device: str, size: int = 1) -> World:
        return World(rank=0, size=size, device=torch.device(device))

    assert capture_for(training_set, world("cuda")) is cuda_graph.cuda_graph
    assert capture_for(training_set, world("cuda", size=2)) is None
    assert capture_for(training_set, world("cpu")) is None


# Other versions of torch may emit other warnings, which this test ignores.
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_on_a_gpu_captured_steps_equal_uncaptured_steps(
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
