"""The configuration of a training run: all settings that determine its result.

A `RunConfig` is frozen, hashable, and converts to and from JSON. Learning rates apply to the given batch size
and are never scaled implicitly.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from platform.common.schema import Frozen, Seed
from platform.data.config import DataConfig, ImageSide
from platform.models.config import ModelConfig

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
    """Length in epochs of a linear rise of the learning rate from zero, before the schedule."""


class Constant(_Warmup):
    """A constant learning rate."""

    name: Literal["constant"]


class Step(_Warmup):
    """Multiply the learning rate by `factor` at each milestone."""

    name: Literal["step"]
    milestones: tuple[PositiveFloat, ...]
    """Ascending positions of the drops: fractions of the run if all are below 1, else in `unit`."""
    unit: Literal["epochs", "iterations"] = "epochs"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _milestones_ascend(self) -> Self:
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must be a non-empty, ascending list")
        return self


class Annealing(_Warmup):
    """From the peak to `final_fraction` of it: half a cosine (Loshchilov and Hutter 2017), or linear."""

    name: Literal["cosine", "linear"]
    final_fraction: Fraction = 0.0


class Triangular(Frozen):
    """Linear from `start_fraction` to the peak at `peak_at` of the run, then linear to `final_fraction`."""

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
    """Multiply the learning rate by `factor` if the validation loss has not fallen for `patience_epochs`.

    A run without a validation split (the final retrain) uses the training loss instead.
    """

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience_epochs: PositiveInt = 10
    min_lr: NonNegativeFloat = 0.0
    threshold: NonNegativeFloat = 1e-4
    """Minimum relative decrease of the loss that counts as progress."""


Schedule = Annotated[
    Constant | Step | Annealing | Triangular | OneCycle | Plateau, Field(discriminator="name")
]


class Cutout(Frozen):
    """Cutout (DeVries and Taylor 2017): square holes at random centers, filled with the mean."""

    holes: NonNegativeInt = Field(default=1, le=64)
    length: NonNegativeInt = Field(default=0, le=1024)
    """Side of a hole in pixels; 0 disables cutout."""


class AugmentConfig(Frozen):
    """Random augmentation of each training image, on the device."""

    crop_padding: NonNegativeInt = Field(default=4, le=32)
    """Zero padding in pixels on each side before a random crop to the original size; 0 for no crop."""
    flip: bool = True
    """Mirror each image left to right with probability 1/2."""
    cutout: Cutout = Cutout()
    mixup: NonNegativeFloat = Field(default=0.0, le=1000)
    """Alpha of mixup's Beta distribution (Zhang et al. 2018); 0 disables it."""
    cutmix: NonNegativeFloat = Field(default=0.0, le=1000, exclude_if=lambda value: value == 0)
    """Alpha of CutMix's Beta distribution (1 in Yun et al. 2019); 0 disables it. With mixup enabled, too,
    each batch uses one of the two, with probability 1/2."""
    shorter_side: tuple[ImageSide, ImageSide] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Smallest and largest length in pixels to which an image's shorter side is resized before the random
    crop (He et al. 2016, section 3.4). Required with `data.name: image_folder`, invalid otherwise."""
    color: PositiveFloat | None = Field(default=None, exclude_if=lambda value: value is None)
    """Standard deviation of the random multiples of the principal colors that are added to each image
    (Krizhevsky et al. 2012, section 4.1); `null`: none. Only with `data.name: image_folder`."""


class RunConfig(Frozen):
    """One training run."""

    model: ModelConfig
    data: DataConfig = DataConfig()
    epochs: PositiveInt | None = Field(default=None, le=100_000)
    """Passes over the training images; set this or `iterations`."""
    iterations: PositiveInt | None = Field(default=None, le=1_000_000_000)
    """Optimizer steps; set this or `epochs`."""
    batch_size: PositiveInt = Field(default=128, le=1_000_000)
    """Images per optimizer step over all workers; must be divisible by the number of workers."""
    optimizer: Optimizer
    schedule: Schedule
    augment: AugmentConfig = AugmentConfig()
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction = 0.0
    """Decay per step of an exponential moving average of the weights, which is evaluated instead; 0: none."""
    clip_grad_norm: PositiveFloat | None = None
    """Maximum gradient norm; `null`: no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast if the hardware supports it natively, else fp32."""
    sync_batch_norm: bool = False
    """Compute batch statistics over all workers instead of per worker."""
    report: Literal["last", "best"] = "last"
    """The reported accuracy and saved model: those of the last epoch, or of the best validation epoch."""
    seed: Seed = 0
    """Seed of initialization, order and augmentation."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("set exactly one of 'epochs' and 'iterations'")
        return self

    @model_validator(mode="after")
    def _augmentation_fits_the_data(self) -> Self:
        augment, size = self.augment, self.data.image_size or 224
        if self.data.name != "image_folder":
            if augment.shorter_side or augment.color or self.data.image_size:
                raise ValueError(
                    "augment.shorter_side, augment.color and data.image_size require data.name: "
                    f"image_folder; got {self.data.name}"
                )
            return self
        if augment.crop_padding or augment.cutout.length or augment.mixup or augment.cutmix:
            raise ValueError(
                "data.name: image_folder does not support crop_padding, cutout, mixup or cutmix: set "
                "augment.crop_padding to 0 and omit the others"
            )
        if augment.shorter_side is None or not size <= augment.shorter_side[0] <= augment.shorter_side[1]:
            raise ValueError(
                "data.name: image_folder requires augment.shorter_side, two ascending lengths of at least "
                f"the crop size of {size} pixels, for example [256, 480]; got {augment.shorter_side}"
            )
        return self

    def digest(self) -> str:
        """Return a short hash, equal for equal configurations on any machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def changed(self, **fields: Any) -> RunConfig:
        """Return a validated copy with some top-level fields replaced."""
        return RunConfig.model_validate({**self.model_dump(), **fields})
