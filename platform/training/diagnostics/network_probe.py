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
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.data.training_data import TrainingData
from platform.training.acceleration.precision import ComputePrecision, autocast

_MAX_IMAGES = 128
_MIN_IMAGES = 16
_TRAINING_IMAGES_PER_PROBE_IMAGE = 64
"""Keeps the probe cheap compared with a short epoch."""
_SPIKE_WINDOW = 50
_SPIKE_WARM_UP = 10
_SPIKE_SIGMAS = 7.0
_SPIKE_RISE = 0.5


@dataclass(frozen=True, kw_only=True)
class NetworkStatistics:
    """Statistics from one probe of a network."""

    first_grad_norm: float
    """Gradient norm of the first convolution's weights."""
    last_grad_norm: float
    """Gradient norm of the classifier's weights."""
    dead_units: float
    """Share of the ReLU channels that are zero at every position of every image; 0..1."""
    feature_rank: float
    """Effective rank of the features before the classifier: exp of the entropy of their singular values."""
    weight_norm: float
    """L2 norm of all convolution and classifier weights."""
    weight_scale: float
    """`weight_norm` as a multiple of its expectation after He initialization."""
    zero_logits: float
    """Share of the network's outputs that are exactly zero; 0..1."""

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, as in `EpochRecord`."""
        return dict(vars(self))


class NetworkProbe:
    """Measures `NetworkStatistics` on a fixed batch of training images, kept on the device."""

    def __init__(self, data: TrainingData, *, device: torch.device, precision: ComputePrecision) -> None:
        count = len(data.train.labels) // _TRAINING_IMAGES_PER_PROBE_IMAGE
        count = min(_MAX_IMAGES, max(_MIN_IMAGES, count))
        # Evenly spaced, because the images may be sorted by class.
        rows = np.linspace(0, len(data.train.labels) - 1, count).astype(int)
        images = torch.from_numpy(data.train.images[rows].astype(np.float32)) / 255
        mean, std = (torch.tensor(part) for part in (data.normalization.mean, data.normalization.std))
        mean = mean if mean.dim() == 3 else mean[:, None, None]
        self._images = ((images - mean) / std[:, None, None]).to(device, memory_format=torch.channels_last)
        self._labels = torch.from_numpy(np.asarray(data.train.labels)[rows]).long().to(device)
        self._precision = precision

    def measure(self, network: nn.Module) -> NetworkStatistics | None:
        """Run the images through `network`, forward and backward; its mode and gradients stay unchanged.

        Returns:
            None if a value is not finite (the run may be about to diverge), or if the network has no
            convolution or no linear classifier.
        """
        first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
        last = next((each for each in reversed(list(network.modules())) if isinstance(each, nn.Linear)), None)
        if first is None or last is None:
            return None
        training = network.training
        network.eval()
        try:
            with torch.enable_grad(), _record_activations(network, last) as activations:
                with autocast(self._precision, self._images.device):
                    logits = network(self._images)
                loss = cross_entropy(logits.float(), self._labels)
                gradients = torch.autograd.grad(loss, (first.weight, last.weight))
        finally:
            network.train(training)
        dead, features = activations.dead_channels, activations.features
        if features is None or not all(bool(part.isfinite().all()) for part in (*gradients, features)):
            return None
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        weight_norm = float(torch.nn.utils.get_total_norm([weight.detach() for weight in weights]))
        statistics = NetworkStatistics(
            first_grad_norm=float(gradients[0].float().norm()),
            last_grad_norm=float(gradients[1].float().norm()),
            dead_units=float(torch.cat(dead).float().mean()) if dead else 0.0,
            feature_rank=_effective_rank(features),
            weight_norm=weight_norm,
            # He initialization has variance 2/fan_in, so the expected squared norm is 2 per output channel.
            weight_scale=weight_norm / math.sqrt(2 * sum(len(weight) for weight in weights)),
            zero_logits=float((logits == 0).float().mean()),
        )
        # A norm can overflow although its summands are finite.
        return statistics if all(map(math.isfinite, statistics.as_dict().values())) else None


@dataclass
class _Activations:
    dead_channels: list[Tensor]
    """Per ReLU layer, which channels are zero everywhere; bool [channels]."""
    features: Tensor | None = None
    """float32 [n, C], the input of the classifier."""


@contextmanager
def _record_activations(network: nn.Module, classifier: nn.Linear) -> Iterator[_Activations]:
    """Record the dead channels of each ReLU and the input of the classifier.

    In the ResNets every `bn1` is directly followed by a ReLU function (in the stem and in the blocks); other
    networks have ReLU modules.
    """
    activations = _Activations(dead_channels=[])

    def record_dead_channels(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
        activations.dead_channels.append(out.detach().transpose(0, 1).flatten(1).amax(dim=1) <= 0)

    def record_features(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        activations.features = inputs[0].detach().float()

    handles = [
        module.register_forward_hook(record_dead_channels)
        for name, module in network.named_modules()
        if name.rsplit(".", maxsplit=1)[-1] == "bn1" or isinstance(module, nn.ReLU)
    ]
    handles.append(classifier.register_forward_pre_hook(record_features))
    try:
        yield activations
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
