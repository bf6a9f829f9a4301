"""The model folder that the C++ engine loads: `model.param`, `model.bin` and their description, `model.json`.

`model.json` specifies input, normalization, classes, precision, the hashes of the two files, and reference
logits. Keys beyond this schema are kept and ignored.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from platform.common.atomic import read_json
from platform.common.errors import UserError
from platform.common.schema import Frozen, describe_problems

SCHEMA_VERSION = 1
PARAM, WEIGHTS, DOCUMENT = "model.param", "model.bin", "model.json"
FILES = (PARAM, WEIGHTS, DOCUMENT)
SELF_TEST_IMAGES = 3

ModelPrecision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[ModelPrecision, ...] = ("fp32", "fp16", "bf16", "int8")
Fraction = Annotated[float, Field(ge=0, le=1)]


class InputInfo(Frozen):
    """The image the network takes."""

    blob: str = "in0"
    channels: Literal[1, 3] = 3
    height: PositiveInt
    width: PositiveInt
    color: Literal["RGB"] = "RGB"
    resize: Literal["direct", "shorter_side_crop"] = "direct"
    """How an image of another size is resized: `direct` ignores its aspect ratio; `shorter_side_crop` resizes
    its shorter side to `shorter_side` and takes the center crop, as usual for ImageNet."""
    shorter_side: PositiveInt | None = None
    """Pixels, for `shorter_side_crop`; at least the input's longer side."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if (self.resize == "shorter_side_crop") != (self.shorter_side is not None):
            raise ValueError("resize: shorter_side_crop requires shorter_side, and no other resize takes it")
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError("shorter_side must be at least the input's longer side")
        return self


class NormalizationInfo(Frozen):
    """x = (pixel / 255 - mean) / std."""

    mean: tuple[float, ...]
    """One per channel, or one per pixel in channel, row, column order."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """One per channel."""


class OutputInfo(Frozen):
    """The logits."""

    blob: str = "out0"
    classes: tuple[str, ...] = Field(min_length=2)


class FileInfo(Frozen):
    """A file of the folder."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: PositiveInt


class SelfTest(Frozen):
    """PyTorch's fp32 logits for `self_test_images`."""

    tolerance: NonNegativeFloat
    """Largest permitted absolute difference of a logit."""
    logits: tuple[tuple[float, ...], ...]


class ParityInfo(Frozen):
    """Differences between ncnn's logits in this precision and the reference."""

    images: PositiveInt
    max_abs: NonNegativeFloat
    """Largest absolute difference of a logit."""
    mean_abs: NonNegativeFloat
    max_logit: NonNegativeFloat
    """Largest absolute logit of the reference."""
    top1_agreement: Fraction
    data: str = "unknown"
    """Label of the images' data set, or `random`."""
    reference: Literal["pytorch fp32", "ncnn fp32"] = "pytorch fp32"
    """Source of the reference logits."""

    @property
    def max_relative(self) -> float:
        """Largest absolute difference of a logit, relative to the largest logit; 0 for equal logits."""
        return self.max_abs / self.max_logit if self.max_abs else 0.0


class SourceInfo(Frozen):
    """Provenance of the network."""

    model_config = ConfigDict(extra="allow")

    run: str | None = None
    sweep: str | None = None
    commit: str | None = None
    data: str | None = None
    test_accuracy: Fraction | None = None


class ModelDocument(BaseModel):
    """`model.json`."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    schema_version: Literal[1] = 1
    name: str
    input: InputInfo
    normalization: NormalizationInfo
    output: OutputInfo
    precision: ModelPrecision
    files: dict[str, FileInfo]
    self_test: SelfTest
    parity: ParityInfo
    source: SourceInfo = SourceInfo()
    exporter: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that exported the model."""
    tuning: dict[str, object] | None = None
    """Edits of `model.param` for speed."""
    quantization: dict[str, object] | None = None
    """Calibration of the int8 scales."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        image = self.input
        if len(self.normalization.mean) not in {image.channels, image.channels * image.height * image.width}:
            raise ValueError("normalization.mean needs one number per channel, or one per pixel")
        if len(self.normalization.std) != image.channels:
            raise ValueError("normalization.std needs one number per channel")
        if any(len(row) != len(self.output.classes) for row in self.self_test.logits):
            raise ValueError("self_test.logits needs one number per class in every row")
        if set(self.files) != {PARAM, WEIGHTS}:
            raise ValueError(f"files must be {PARAM} and {WEIGHTS}")
        return self

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map uint8 images [N, C, H, W] to the network's float32 input of the same shape."""
        mean = np.array(self.normalization.mean, np.float32)
        std = np.array(self.normalization.std, np.float32)[:, None, None]
        pixels = images.astype(np.float32) / np.float32(255)
        return (pixels - mean.reshape(self.input.shape if mean.size > len(std) else (-1, 1, 1))) / std


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose files match its document."""

    path: Path
    document: ModelDocument

    @property
    def param(self) -> Path:
        """Path of ncnn's layer file."""
        return self.path / PARAM

    @property
    def weights(self) -> Path:
        """Path of ncnn's weights file."""
        return self.path / WEIGHTS


def self_test_images(input_shape: tuple[int, int, int], count: int = SELF_TEST_IMAGES) -> NDArray[np.uint8]:
    """Return the fixed images uint8 [count, C, H, W] of the self-test; the engine generates the same ones.

    Pixel (c, h, w) of image k is (31*i + 17*h + 97*k) mod 256 with i = (c*H + h)*W + w.
    """
    index = np.arange(int(np.prod(input_shape))).reshape(input_shape)
    row = np.arange(input_shape[1])[None, :, None]
    return np.stack([(31 * index + 17 * row + 97 * k) % 256 for k in range(count)]).astype(np.uint8)


def describe_file(path: Path) -> FileInfo:
    """Return the size and hash of a file."""
    with path.open("rb") as file:
        return FileInfo(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def write_document(folder: Path, document: ModelDocument) -> None:
    """Write `model.json` into a folder that is not in use yet, and fsync all three files."""
    text = document.model_dump_json(indent=2, exclude_none=True) + "\n"
    (folder / DOCUMENT).write_text(text, encoding="utf-8")
    for name in FILES:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def open_model_folder(path: Path) -> ModelFolder:
    """Read a model folder and check its files against its document.

    Raises:
        UserError: a file is missing or does not match; the message names it.
    """
    if not path.is_dir():
        raise UserError(f"no model folder at {path}; make one with: python -m deploy.export SWEEP")
    for name in FILES:
        if not (path / name).is_file():
            raise UserError(f"{path} is not a model folder: {name} is missing; export the model again")
    document = _read_document(path / DOCUMENT)
    for name, expected in document.files.items():
        found = describe_file(path / name)
        if found.bytes != expected.bytes:
            raise UserError(
                f"{path / name} is damaged: it has {found.bytes} bytes, {DOCUMENT} says {expected.bytes}; "
                "export the model again"
            )
        if found.sha256 != expected.sha256:
            raise UserError(
                f"{path / name} is damaged: its sha256 is {found.sha256[:12]}..., {DOCUMENT} says "
                f"{expected.sha256[:12]}...; export the model again"
            )
    return ModelFolder(path, document)


def read_document(folder: Path) -> ModelDocument:
    """Read only the `model.json` of a model folder.

    Raises:
        UserError: it is missing or damaged.
    """
    file = folder / DOCUMENT
    if not file.is_file():
        raise UserError(f"no model folder at {folder}; make one with: python -m deploy.export SWEEP")
    return _read_document(file)


def _read_document(file: Path) -> ModelDocument:
    values = read_json(file, remedy="export the model again")
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file} has schema version {version!r}, this program reads {SCHEMA_VERSION}; "
            "export the model again, or use the program version that wrote it"
        )
    try:
        return ModelDocument.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(describe_problems(error, ModelDocument, source=str(file)))) from None
