"""A look inside a network at the end of an epoch: does the gradient arrive, and do the units still work?

One small batch, unaugmented, passes through the network in evaluation mode and back, beside the training:
no weight, no batch statistic and no random number changes, so a run with the look and one without are equal
bit by bit. Its cost is that of a step of at most 128 images per epoch.

Sources: dead units and the effective rank of the features as signs of a loss of plasticity, Dohare et al.
2024 (Nature 632, "Loss of plasticity in deep continual learning"); first against last layer's gradient,
Zhang et al. 2021 (ICSE, "AUTOTRAINER").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.data.training_data import TrainingData
from platform.training.acceleration.precision import Precision, autocast

_MOST_IMAGES = 128
_SHARE = 64
"""One image in so many of the training images, so that the look stays small beside a short epoch."""
_FEWEST_IMAGES = 16
_SPIKE_WINDOW = 50
_SPIKE_WARM_UP = 10
_SPIKE_SIGMAS = 7.0
_SPIKE_RISE = 0.5


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look saw."""

    first_grad_norm: float
    """Gradient norm of the first convolution's weights."""
    last_grad_norm: float
    """The same of the classifier's."""
    dead_units: float
    """Share of the channels before a rectifier that are zero behind it, everywhere in every image; 0..1."""
    feature_rank: float
    """Effective rank of the features before the classifier: exp of the entropy of their singular values."""
    weight_norm: float
    """L2 norm of all convolution and classifier weights."""

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name, as `EpochRecord` has them."""
        return dict(vars(self))


class Probe:
    """A few training images, kept on the device, and how to look at a network with them."""

    def __init__(self, data: TrainingData, *, device: torch.device, precision: Precision) -> None:
        count = min(_MOST_IMAGES, max(_FEWEST_IMAGES, len(data.train.labels) // _SHARE))
        # Evenly from the whole table, which may be sorted by class.
        rows = np.linspace(0, len(data.train.labels) - 1, count).astype(int)
        images = torch.from_numpy(data.train.images[rows].astype(np.float32)) / 255
        mean, std = (torch.tensor(part) for part in (data.normalization.mean, data.normalization.std))
        mean = mean if mean.dim() == 3 else mean[:, None, None]
        self._images = ((images - mean) / std[:, None, None]).to(device, memory_format=torch.channels_last)
        self._labels = torch.from_numpy(np.asarray(data.train.labels)[rows]).long().to(device)
        self._precision = precision

    def look(self, network: nn.Module) -> Look | None:
        """Pass the images through `network` and back; its mode and gradients are left as they were.

        None where what comes out is not finite (the run is about to end of that anyway), and of a network
        without convolution or classifier.
        """
        first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
        last = next((each for each in reversed(list(network.modules())) if isinstance(each, nn.Linear)), None)
        if first is None or last is None:
            return None
        training = network.training
        network.eval()
        try:
            with torch.enable_grad(), _listening(network, last) as seen:
                with autocast(self._precision, self._images.device):
                    logits = network(self._images)
                loss = cross_entropy(logits.float(), self._labels)
                gradients = torch.autograd.grad(loss, (first.weight, last.weight))
        finally:
            network.train(training)
        features = seen.features
        if features is None or not all(bool(part.isfinite().all()) for part in (*gradients, features)):
            return None
        weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        return Look(
            first_grad_norm=float(gradients[0].float().norm()),
            last_grad_norm=float(gradients[1].float().norm()),
            dead_units=float(torch.cat(seen.silent).float().mean()) if seen.silent else 0.0,
            feature_rank=_effective_rank(features),
            weight_norm=float(torch.nn.utils.get_total_norm([weight.detach() for weight in weights])),
        )


def count_spikes(losses: NDArray[np.floating]) -> int:
    """Return how often the loss leaps above what came before it within an epoch.

    A step begins a spike where its loss exceeds the median of up to 50 steps before it by 7 robust standard
    deviations and by half of that median: the first alone would call a calm run's noise a spike, the second
    a noisy run's. Steps that follow above the same limit belong to the same spike.

    Args:
        losses: mean loss of each batch, [steps]; the first ten are only looked back at.
    """
    steps = range(_SPIKE_WARM_UP, min(_SPIKE_WINDOW, len(losses)))
    parts = [_leaps(losses[None, :step], losses[step : step + 1]) for step in steps]
    if len(losses) > _SPIKE_WINDOW:
        windows = np.lib.stride_tricks.sliding_window_view(losses[:-1], _SPIKE_WINDOW)
        parts.append(_leaps(windows, losses[_SPIKE_WINDOW:]))
    leaps = np.concatenate([[False], *parts])
    # A plain int: no journal takes numpy's.
    return int(np.count_nonzero(leaps[1:] & ~leaps[:-1]))


def _leaps(before: NDArray[np.floating], losses: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which of `losses` [n] lie above the limit that the losses before each, [n, window], set."""
    median = np.median(before, axis=1)
    deviation = 1.4826 * np.median(np.abs(before - median[:, None]), axis=1)
    limit: NDArray[np.floating] = median + np.maximum(_SPIKE_SIGMAS * deviation, _SPIKE_RISE * median)
    return losses > limit


def look_fields(look: Look | None) -> Mapping[str, float]:
    """Return what `EpochRecord` takes from a look; nothing where there was none."""
    return look.as_dict() if look is not None else {}


@dataclass
class _Seen:
    silent: list[Tensor]
    """Per rectified layer, which channels were zero throughout; bool [channels]."""
    features: Tensor | None = None


@contextmanager
def _listening(network: nn.Module, last: nn.Linear) -> Iterator[_Seen]:
    """Note which channels a rectifier silences, and what arrives at the classifier.

    Behind every `bn1` of these networks stands a rectifier and nothing between (stem and blocks alike).
    """
    seen = _Seen(silent=[])

    def rectified(_: nn.Module, __: tuple[Tensor, ...], out: Tensor) -> None:
        seen.silent.append(out.detach().amax(dim=(0, 2, 3)) <= 0)

    def classified(_: nn.Module, arrived: tuple[Tensor, ...]) -> None:
        seen.features = arrived[0].detach().float()

    handles = [
        module.register_forward_hook(rectified)
        for name, module in network.named_modules()
        if name.rsplit(".", maxsplit=1)[-1] == "bn1"
    ]
    handles.append(last.register_forward_pre_hook(classified))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _effective_rank(features: Tensor) -> float:
    """Return exp(entropy) of the normalized singular values of [N, C]; 0 where all features are zero."""
    # At most 128 x 512 numbers: not worth loading a GPU's solver for.
    values = torch.linalg.svdvals(features.cpu())
    total = values.sum()
    if not bool(total > 0):
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())
