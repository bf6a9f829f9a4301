"""Trained-model files: weights, preprocessing, class names and provenance of a network.

The file is a torch archive of tensors and primitives, with a digest over all of them. It is read with
`weights_only=True`, so that loading a file cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import textwrap
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from platform.common.atomic import replacing
from platform.common.errors import UserError
from platform.common.schema import validate
from platform.data.images.cropping import resize_and_center_crop
from platform.data.images.decode import resize_image
from platform.models.config import ModelConfig
from platform.models.networks import build_network

FORMAT = "resnet-sweep-platform/trained-model"
SCHEMA_VERSION = 1

_NEXT_STEP = "give the model.pt of a training run"

_CONTENT: dict[str, type] = {
    "model": dict,
    "state_dict": dict,
    "mean": Tensor,
    "std": Tensor,
    "class_names": list,
    "input_shape": list,
    "data_label": str,
    "provenance": dict,
    "metrics": dict,
}


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A network's weights, with the preprocessing of its input and the class names of its output."""

    model: ModelConfig
    state_dict: dict[str, Tensor]
    mean: Tensor
    """float32 [C], or [C, H, W] for the mean image. Network input: (pixel / 255 - mean) / std."""
    std: Tensor
    """float32 [C]."""
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    data_label: str
    """Label of the training dataset: `cifar10`, `generated`, a folder's name."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Origin of the weights: commit, sweep, run, versions."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Measurements by metric key: `test_accuracy`, ..."""
    shorter_side: int | None = None
    """Length in pixels that the shorter side is resized to before a center crop of the input size; None: the
    whole image is resized to the input size, ignoring its aspect ratio."""

    def network(self) -> nn.Module:
        """Return the network with these weights, in eval mode, float32, on the CPU."""
        network = build_network(self.model, num_classes=len(self.class_names))
        network.load_state_dict(self.state_dict)
        return network.eval()

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Resize decoded images uint8 [H, W, 3] of any size to uint8 [N, C, H, W] of the input size."""
        side = self.input_shape[1]
        fitted = [
            resize_image(image, side)
            if self.shorter_side is None
            else resize_and_center_crop(image, shorter_side=self.shorter_side, size=side)
            for image in images
        ]
        return torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2)

    def normalize(self, images: Tensor) -> Tensor:
        """Map uint8 images [N, C, H, W] to the network's float32 input of the same shape."""
        mean = self.mean if self.mean.dim() == 3 else self.mean[:, None, None]
        pixels = images.to(torch.float32) / 255
        return (pixels - mean.to(images.device)) / self.std[:, None, None].to(images.device)


def save_trained_model(path: Path, model: TrainedModel) -> None:
    """Write `model` to `path` atomically.

    Raises:
        UserError: the file cannot be written; the previous one is unchanged.
    """
    content: dict[str, Any] = {
        **vars(model),
        "model": model.model.model_dump(),
        "state_dict": {name: _plain(tensor) for name, tensor in model.state_dict.items()},
        "mean": _plain(model.mean).float(),
        "std": _plain(model.std).float(),
        "metrics": {name: float(value) for name, value in model.metrics.items()},
        "class_names": list(model.class_names),
        "input_shape": list(model.input_shape),
    }
    header = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "digest": _digest(content)}
    write_torch_file(path, {**header, **content}, name="trained model")


def write_torch_file(path: Path, document: Mapping[str, Any], *, name: str) -> None:
    """Write tensors and primitives as a torch archive, atomically; `name` says in messages what they are.

    Raises:
        UserError: the file cannot be written; the previous one is unchanged.
    """
    try:
        # Given a path instead of a file, torch hides the reason of a failed write.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(document, file)
    except (OSError, RuntimeError) as error:
        # torch wraps file-system errors in a RuntimeError.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else error
        raise UserError(
            f"cannot write the {name} {path}: {reason}; free some space or choose another folder"
        ) from error


def load_trained_model(path: Path) -> TrainedModel:
    """Read a file written by `save_trained_model`.

    Raises:
        UserError: the file is missing, damaged, not a trained model, or of another schema version.
    """
    return parse_trained_model(read_torch_file(path), path)


def parse_trained_model(document: object, path: Path) -> TrainedModel:
    """Return the trained model in `document`, which `read_torch_file` read from `path`; errors as above."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is not a trained model of this platform; {_NEXT_STEP}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {document.get('schema_version')!r}, this program reads "
            f"{SCHEMA_VERSION}; use the program version that wrote it"
        )
    content: dict[str, Any] = {each.name: document.get(each.name) for each in fields(TrainedModel)}
    if not _well_formed(content) or _digest(content) != document.get("digest"):
        raise UserError(
            f"{path} is damaged: its content does not match its digest; restore it or train again"
        )
    content["model"] = validate(ModelConfig, content["model"], source=str(path))
    content |= {name: tuple(content[name]) for name in ("class_names", "input_shape")}
    model = TrainedModel(**content)
    check_weights(model, path)
    return model


def check_weights(model: TrainedModel, path: Path) -> None:
    """Check that the weights fit the network and are finite.

    Raises:
        UserError: they do not; the message names `path`.
    """
    try:
        model.network()
    except (RuntimeError, TypeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise UserError(f"{path}: the weights do not fit {model.model.name}: {reason}") from None
    tensors = {**model.state_dict, "mean": model.mean, "std": model.std}
    wrong = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise UserError(
            f"{path}: weights must be finite, but {len(wrong)} of {len(tensors)} tensors contain NaN or "
            f"infinity (the first is {wrong[0]}): the model diverged in training; give another one"
        )


def _plain(tensor: Tensor) -> Tensor:
    # A clone: torch.save writes the whole storage of a view.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_torch_file(path: Path) -> object:
    """Return the content of a torch archive of tensors and primitives, or of a safetensors file.

    Raises:
        UserError: the file is missing, damaged, or contains other objects.
    """
    if not path.is_file():
        raise UserError(f"no trained model at {path}; {_NEXT_STEP}")
    with path.open("rb") as file:  # a safetensors file starts with a length of 8 bytes, then JSON
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    if is_safetensors:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is a damaged safetensors file: {error}; replace it") from None
    try:
        _verify_checksums(path)
        with warnings.catch_warnings():
            # torch warns about an unusual pickle protocol; the error below is more specific.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises `weights_only=False`, which would run code from the file.
        raise UserError(
            f"{path} is damaged, or contains objects other than tensors and primitives, which are never "
            "loaded; of a whole pickled network, save the weights: torch.save(network.state_dict(), PATH)"
        ) from None
    except Exception:  # noqa: BLE001 - zipfile and torch raise many types on damaged bytes
        raise UserError(f"{path} is damaged or not a trained model of this platform; {_NEXT_STEP}") from None


def _verify_checksums(path: Path) -> None:
    if zipfile.is_zipfile(path):  # files of torch's old format are none
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile


def _well_formed(content: Mapping[str, Any]) -> bool:
    tensors = content["state_dict"]
    return all(isinstance(content[key], kind) for key, kind in _CONTENT.items()) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    )


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 over every name, primitive, shape, type and byte in `content`."""
    sha256 = hashlib.sha256()
    tensors = {**content["state_dict"], "/mean": content["mean"], "/std": content["std"]}
    plain = {
        key: value
        for key, value in content.items()
        if key not in {"state_dict", "mean", "std"} and value is not None
    }
    sha256.update(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()
