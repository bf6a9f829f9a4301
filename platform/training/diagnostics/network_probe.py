"""Gradient and activation statistics of a network at the end of an epoch, and loss spikes within it.

The probe runs one small batch without augmentation forward and backward in evaluation mode. It changes
neither weights nor batch statistics nor random generators, so a run with the probe is bit-identical to one
without. It costs a step of at most 128 images per epoch.

Sources: dead units and the effective rank of the features as indicators of a loss of plasticity, Dohare et
al. 2024 (Nature 632, "Loss of plasticity in deep continual learning"); gradient of the first layer compared
with the last layer, Zhang et al. 2021 (ICSE, "AUTOTRAINER").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.data.dataset import Split
from platform.data.normalization import Normalization
from platform.training.acceleration.precision import ComputePrecision, autocast
from platform.training.inputs.augment import Normalizer

_MAX_IMAGES = 128
_MIN_IMAGES = 16
_TRAINING_IMAGES_PER_PROBE_IMAGE = 64
"""Keeps the probe cheap compared with a short epoch."""
_SPIKE_WINDOW = 50
_SPIKE_WARM_UP = 10
_SPIKE_SIGMAS = 7.0
_SPIKE_RISE = 0.5


class NetworkProbe:
    """Measures a network on a fixed batch of training images, kept on the device."""

    def __init__(
        self, train: Split, normalization: Normalization, *, device: torch.device, precision: ComputePrecision
    ) -> None:
        count = min(_MAX_IMAGES, max(_MIN_IMAGES, len(train) // _TRAINING_IMAGES_PER_PROBE_IMAGE))
        # Evenly spaced, because the images may be sorted by class.
        chosen = train.take(np.linspace(0, len(train) - 1, count).astype(int))
        self._images = Normalizer(normalization, device)(torch.from_numpy(chosen.images))
        self._labels = torch.from_numpy(chosen.labels).to(device)
        self._precision = precision

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Run the images through `network`, forward and backward; its mode and gradients stay unchanged.

        Returns:
            The statistics by their names in `EpochRecord`; empty if a value is not finite (the run may be
            about to diverge), or if the network has no convolution or no linear classifier.
        """
        first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
        last = next((each for each in reversed(list(network.modules())) if isinstance(each, nn.Linear)), None)
        if first is None or last is None:
            return {}
        training = network.training
        network.eval()
        try:
            with torch.enable_grad(), _record_activations(network, last) as (dead, inputs):
                with autocast(self._precision, self._images.device):
                    logits = network(self._images)
                loss = cross_entropy(logits.float(), self._labels)
                gradients = torch.autograd.grad(loss, (first.weight, last.weight))
        finally:
            network.train(training)
        if not inputs or not all(bool(part.isfinite().all()) for part in (*gradients, *inputs)):
            return {}
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        weight_norm = float(torch.nn.utils.get_total_norm([weight.detach() for weight in weights]))
        statistics = {
            "first_grad_norm": float(gradients[0].float().norm()),
            "last_grad_norm": float(gradients[1].float().norm()),
            "dead_units": float(torch.cat(dead).float().mean()) if dead else 0.0,
            "feature_rank": _effective_rank(inputs[-1]),
            "weight_norm": weight_norm,
            # He initialization has variance 2/fan_in, so the expected squared norm is 2 per output channel.
            "weight_scale": weight_norm / math.sqrt(2 * sum(len(weight) for weight in weights)),
            "zero_logits": float((logits == 0).float().mean()),
        }
        # A norm can overflow although its summands are finite.
        return statistics if all(map(math.isfinite, statistics.values())) else {}


@contextmanager
def _record_activations(
    network: nn.Module, classifier: nn.Linear
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record which channels of each ReLU are zero everywhere, and the input [n, C] of the classifier.

    In the ResNets every `bn1` is directly followed by a ReLU function (in the stem and in the blocks); other
    networks have ReLU modules.
    """
    dead_channels: list[Tensor] = []
    features: list[Tensor] = []

    def record_dead_channels(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
        dead_channels.append(out.detach().transpose(0, 1).flatten(1).amax(dim=1) <= 0)

    def record_features(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features.append(inputs[0].detach().float())

    handles = [
        module.register_forward_hook(record_dead_channels)
        for name, module in network.named_modules()
        if name.rsplit(".", maxsplit=1)[-1] == "bn1" or isinstance(module, nn.ReLU)
    ]
    handles.append(classifier.register_forward_pre_hook(record_features))
    try:
        yield dead_channels, features
    finally:
        for handle in handles:
            handle.remove()


def _effective_rank(features: Tensor) -> float:
    """Return exp(entropy) of the normalized singular values of [N, C]; 0 if all features are zero."""
    # At most 128 x 512 numbers: loading a GPU's solver would cost more.
    values = torch.linalg.svdvals(features.cpu())
    total = values.sum()
    if not bool(total > 0):
        return 0.0
    normalized = values / total
    return float(torch.special.entr(normalized).sum().exp())


def count_spikes(losses: NDArray[np.floating]) -> int:
    """Return the number of loss spikes within an epoch.

    A spike starts at a step whose loss exceeds the median of up to 50 preceding steps by 7 robust standard
    deviations and by half of that median. The first condition alone would report the noise of a calm run, the
    second alone that of a noisy run. Consecutive steps above the limit form one spike.

    Args:
        losses: mean loss of each batch, [steps]; the first ten serve as reference only.
    """
    steps = range(_SPIKE_WARM_UP, min(_SPIKE_WINDOW, len(losses)))
    parts = [_exceeds_limit(losses[None, :step], losses[step : step + 1]) for step in steps]
    if len(losses) > _SPIKE_WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(losses[:-1], _SPIKE_WINDOW)
        parts.append(_exceeds_limit(windows, losses[_SPIKE_WINDOW:]))
    spikes = np.concatenate([[False], *parts])
    # A Python int: JSON cannot serialize numpy's.
    return int(np.count_nonzero(spikes[1:] & ~spikes[:-1]))


def _exceeds_limit(before: NDArray[np.floating], losses: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which of `losses` [n] exceed the limit given by the losses before each, [n, window]."""
    median = np.median(before, axis=1)
    deviation = 1.4826 * np.median(np.abs(before - median[:, None]), axis=1)
    limit: NDArray[np.floating] = median + np.maximum(_SPIKE_SIGMAS * deviation, _SPIKE_RISE * median)
    return losses > limit
