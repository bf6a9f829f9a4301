"""One training run, complete: everything that decides its outcome, and nothing else.

A `RunConfig` is frozen, hashable, and JSON both ways. Learning rates are written for the batch size
given; nothing is scaled behind the user's back.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from platform.data.config import DataConfig
from platform.models.config import ModelConfig
from platform.schema import Frozen

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Sgd(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    lr: PositiveFloat
    """Peak learning rate, for the batch size of the run."""
    momentum: Fraction = 0.9
    nesterov: bool = False
    """Nesterov's momentum; needs `momentum` above 0."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty, added to the gradient."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self


class Adam(Frozen):
    """Adam (Kingma and Ba 2015); `adamw` decouples the weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adam", "adamw"]
    lr: PositiveFloat
    """Peak learning rate, for the batch size of the run."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0


Optimizer = Annotated[Sgd | Adam, Field(discriminator="name")]


class _Warmup(Frozen):
    warmup_epochs: NonNegativeFloat = 0.0
    """Linear rise of the learning rate from zero, in epochs, before the schedule proper."""


class Constant(_Warmup):
    """The same learning rate throughout."""

    name: Literal["constant"]


class Step(_Warmup):
    """Multiply the learning rate by `factor` at each milestone."""

    name: Literal["step"]
    milestones: tuple[PositiveFloat, ...]
    """Where the rate drops, ascending: as fractions of the run when all are below 1, else in `unit`."""
    unit: Literal["epochs", "iterations"] = "epochs"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _milestones_ascend(self) -> Self:
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must be a non-empty, ascending list")
        return self


class Cosine(_Warmup):
    """Half a cosine from the peak to `final_fraction` of it, per step (Loshchilov and Hutter 2017)."""

    name: Literal["cosine"]
    final_fraction: Fraction = 0.0


class Linear(_Warmup):
    """A straight line from the peak to `final_fraction` of it, per step."""

    name: Literal["linear"]
    final_fraction: Fraction = 0.0


class Triangular(Frozen):
    """Rise from `start_fraction` to the peak over `peak_at` of the run, then a line to `final_fraction`."""

    name: Literal["triangular"]
    peak_at: Annotated[float, Field(gt=0, lt=1)] = 0.2
    start_fraction: Fraction = 0.2
    final_fraction: Fraction = 0.0


class OneCycle(Frozen):
    """Smith and Topin's 1-cycle: cosine from peak/`start_divisor` up, then down to start/`final_divisor`."""

    name: Literal["one_cycle"]
    peak_at: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start_divisor: PositiveFloat = 25.0
    final_divisor: PositiveFloat = 1e4


class Plateau(_Warmup):
    """Multiply the rate by `factor` when validation loss has not fallen for `patience_epochs` epochs.

    In a run without a validation split (the final retrain) the training loss takes its place.
    """

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience_epochs: PositiveInt = 10
    min_lr: NonNegativeFloat = 0.0
    threshold: NonNegativeFloat = 1e-4
    """Relative fall that counts as progress."""


Schedule = Annotated[
    Constant | Step | Cosine | Linear | Triangular | OneCycle | Plateau, Field(discriminator="name")
]


class Cutout(Frozen):
    """DeVries and Taylor 2017: square holes at any center, clipped at the border, filled with the mean."""

    holes: NonNegativeInt = 1
    length: NonNegativeInt = 0
    """Side of a hole in pixels; 0 switches cutout off."""


class AugmentConfig(Frozen):
    """Random changes to each training image, on the device."""

    crop_padding: NonNegativeInt = 4
    """Zero padding in pixels on each side before a random crop to the original size; 0 for no crop."""
    flip: bool = True
    """Mirror half the images, left to right."""
    cutout: Cutout = Cutout()
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup's Beta distribution (Zhang et al. 2018); 0 switches it off."""
    cutmix: NonNegativeFloat = Field(default=0.0, exclude_if=lambda value: value == 0)
    """Alpha of CutMix's Beta distribution (Yun et al. 2019; its authors take 1); 0 switches it off. With
    mixup too, each batch gets one of the two, by a fair coin."""
    shorter_side: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """With `data.name: pictures` only, and needed there: least and largest length in pixels to which a
    picture's shorter side is resized before a random square is cut out (He et al. 2016, section 3.4)."""
    color: PositiveFloat | None = Field(default=None, exclude_if=lambda value: value is None)
    """With `pictures` only: deviation of the random shares of the principal colors that are added to each
    picture (Krizhevsky et al. 2012, section 4.1); `null`: none."""


class RunConfig(Frozen):
    """One training run."""

    model: ModelConfig
    data: DataConfig = DataConfig()
    epochs: PositiveInt | None = None
    """Passes over the training images; give this or `iterations`."""
    iterations: PositiveInt | None = None
    """Optimizer steps; give this or `epochs`."""
    batch_size: PositiveInt = 128
    """Images per optimizer step over all workers; must be divisible by their number."""
    optimizer: Optimizer
    schedule: Schedule
    augment: AugmentConfig = AugmentConfig()
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction = 0.0
    """Decay per step of an exponential moving average of the weights, evaluated in their place; 0: none."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest gradient norm; `null`: not clipped."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast where the hardware computes it natively, else fp32."""
    sync_batch_norm: bool = False
    """Batch statistics over all workers instead of per worker."""
    report: Literal["last", "best"] = "last"
    """The accuracy a run reports: that of its last epoch, or of its best epoch on validation."""
    seed: NonNegativeInt = 0
    """Seed of initialization, order and augmentation."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give exactly one of 'epochs' and 'iterations'")
        return self

    @model_validator(mode="after")
    def _augmentation_fits_the_data(self) -> Self:
        augment, size = self.augment, self.data.picture_size or 224
        if self.data.name != "pictures":
            if augment.shorter_side or augment.color or self.data.picture_size:
                raise ValueError(
                    "augment.shorter_side, augment.color and data.picture_size are for data.name: pictures; "
                    f"it is {self.data.name}"
                )
            return self
        if augment.crop_padding or augment.cutout.length or augment.mixup or augment.cutmix:
            raise ValueError(
                "data.name: pictures has no crop_padding, cutout, mixup or cutmix: set augment.crop_padding "
                "to 0 and leave the others out"
            )
        if augment.shorter_side is None or not size <= augment.shorter_side[0] <= augment.shorter_side[1]:
            raise ValueError(
                "data.name: pictures needs augment.shorter_side, two ascending lengths of at least the "
                f"{size} pixels that are cut out, for example [256, 480]; got {augment.shorter_side}"
            )
        return self

    def digest(self) -> str:
        """Return a short hash that is equal for equal configurations, on any machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def changed(self, **fields: Any) -> RunConfig:
        """Return a copy with some top-level fields replaced, validated again."""
        return RunConfig.model_validate({**self.model_dump(), **fields})
