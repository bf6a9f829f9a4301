"""Measure the ncnn latency of an untrained network; latency does not depend on the weights' values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from platform.models.config import ModelConfig

_SEED = 0
_CALIBRATION_IMAGES = 32
_ATTEMPTS = 3


def untrained_latency_ms(
    model: ModelConfig,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    progress: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> float:
    """Return the engine's median latency of one image on one thread, in milliseconds.

    A measurement disturbed by other work is repeated, up to three attempts; the lowest median is returned. If
    all three were disturbed, `warn` is called, since latencies of different networks may not be comparable.

    Args:
        model: the network; its weights are random, with a fixed seed.
        input_shape: channels, height, width of an image.
        num_classes: number of classes.
        progress: called with progress messages.
        warn: called with a message if the result is unreliable.

    Raises:
        UserError: the network cannot be converted, or the engine cannot be built.
    """
    from deploy.engine_build.engine import run_benchmark
    from deploy.export import export_model

    with tempfile.TemporaryDirectory(prefix="untrained-") as scratch:
        trained, folder = Path(scratch) / "model.pt", Path(scratch) / "export"
        _save(model, trained, input_shape, num_classes)
        export_model(trained, folder, progress=progress)
        medians = []
        for _ in range(_ATTEMPTS):
            record = run_benchmark(folder, threads=(1,), progress=progress)
            medians.append(float(record["results"][0]["latency_ms"]["p50"]))
            noise = record["context"]["noise"]
            if noise["trustworthy"]:
                break
        else:
            warn(
                f"other work disturbed every one of {_ATTEMPTS} measurements of {model.name} "
                f"({noise.get('reason')}): its {min(medians):.3g} ms may be too high compared with the other "
                "networks'; start a new sweep on an idle machine to measure them again"
            )
    return min(medians)


def _save(model: ModelConfig, path: Path, input_shape: tuple[int, int, int], num_classes: int) -> None:
    import torch

    from platform.models.networks import build_network
    from platform.models.trained import TrainedModel, save_trained_model

    channels = input_shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_network(model, num_classes=num_classes)
        # With the initial statistics activations grow from block to block and exceed what fp32 compares well.
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            network.train()(torch.randn(_CALIBRATION_IMAGES, *input_shape))
    save_trained_model(
        path,
        TrainedModel(
            model=model,
            state_dict=network.state_dict(),
            mean=torch.full((channels,), 0.5),
            std=torch.full((channels,), 0.25),
            class_names=tuple(str(index) for index in range(num_classes)),
            input_shape=input_shape,
            data_label="none",
        ),
    )
