"""Fixtures of the engine tests: the engine, built once per session, and a tiny model folder."""

import hashlib
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.engine_build.build_lock import locked
from deploy.engine_build.build_tools import find_build_tools, run_cmake, run_ninja
from deploy.engine_build.engine import EngineBinaries, ensure_engine
from deploy.engine_build.ncnn_source import ENGINE_DIR, ensure_ncnn

CLASSES = ("ant", "bee", "cat", "dog", "elk")
SIDE = 8

PARAM = """7767517
4 4
Input            in0      0 1 in0
Convolution      conv     1 1 in0 1 0=4 1=3 4=1 5=1 6=108 9=1
Pooling          pool     1 1 1 2 0=1 4=1
InnerProduct     fc       1 1 2 out0 0=5 1=1 2=20
"""


def quiet(_: str) -> None:
    """Ignore progress messages."""


@pytest.fixture(scope="session")
def engine() -> EngineBinaries:
    """The engine's programs; builds ncnn too if it is not in the cache."""
    return ensure_engine(progress=quiet)


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """A build of the library, its programs and its tests with address and undefined-behavior sanitizers."""
    tools = find_build_tools()
    prefix = ensure_ncnn(tools, progress=quiet)
    build_dir = ENGINE_DIR / "build" / "asan"
    log = build_dir / "build.log"
    with locked(build_dir.with_name("asan.lock"), progress=quiet):
        arguments = ["--preset", "asan", "-S", str(ENGINE_DIR), "-B", str(build_dir)]
        run_cmake(tools, [*arguments, f"-Dncnn_DIR={prefix}/lib/cmake/ncnn"], log=log, what="configuring")
        run_ninja(tools, build_dir, log=log, what="building with sanitizers")
    return build_dir


@dataclass
class TinyModel:
    """A convolution, a global mean and a classifier, with their reference logits."""

    weights: dict[str, np.ndarray]
    document: dict[str, Any]

    @property
    def param(self) -> bytes:
        return PARAM.encode()

    @property
    def bin(self) -> bytes:
        w = {name: value.astype("<f4").tobytes() for name, value in self.weights.items()}
        tag = struct.pack("<I", 0)
        return tag + w["conv"] + w["conv_bias"] + tag + w["fc"] + w["fc_bias"]

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Compute the logits [classes] of uint8 [3, H, W] in double precision."""
        norm = self.document["normalization"]
        mean, std = (np.array(norm[key], np.float32)[:, None, None] for key in ("mean", "std"))
        x = np.pad(((pixels.astype(np.float32) / 255 - mean) / std).astype(float), ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        hidden = np.einsum("chwij,ocij->ohw", windows, self.weights["conv"])
        hidden = np.maximum(hidden + self.weights["conv_bias"][:, None, None], 0).mean((1, 2))
        return self.weights["fc"] @ hidden + self.weights["fc_bias"]

    def write(self, folder: Path, *, seal: bool = True, **changes: Any) -> Path:
        """Write the folder; `changes` replace `param`, `bin` or keys of the document.

        With `seal`, the document has the hashes of the files that are written.
        """
        param, weights = changes.pop("param", self.param), changes.pop("bin", self.bin)
        document = self.document | changes
        if seal:
            document = document | {"files": _files(param, weights)}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.param").write_bytes(param)
        (folder / "model.bin").write_bytes(weights)
        (folder / "model.json").write_text(json.dumps(document, indent=1))
        return folder


def _files(param: bytes, weights: bytes) -> dict[str, Any]:
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in (("model.param", param), ("model.bin", weights))
    }


def pattern(k: int) -> np.ndarray:
    """Return the engine's self-test image number `k`, uint8 [3, H, W]."""
    i = np.arange(3 * SIDE * SIDE).reshape(3, SIDE, SIDE)
    h = np.arange(SIDE)[None, :, None]
    return ((31 * i + 17 * h + 97 * k) % 256).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny() -> TinyModel:
    rng = np.random.default_rng(7)
    weights = {
        "conv": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "conv_bias": rng.normal(0, 0.3, 4).astype(np.float32),
        "fc": rng.normal(0, 1, (5, 4)).astype(np.float32),
        "fc_bias": rng.normal(0, 0.3, 5).astype(np.float32),
    }
    document: dict[str, Any] = {
        "schema_version": 1,
        "name": "tiny",
        "input": {
            "blob": "in0",
            "channels": 3,
            "height": SIDE,
            "width": SIDE,
            "color": "RGB",
            "resize": "direct",
        },
        "normalization": {"mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]},
        "output": {"blob": "out0", "classes": CLASSES},
        "precision": "fp32",
        "parity": {"images": 3, "max_abs": 0, "mean_abs": 0, "max_logit": 1, "top1_agreement": 1},
        "source": {"test_accuracy": 0.5},
    }
    model = TinyModel(weights, document)
    document["files"] = _files(model.param, model.bin)
    rows = [model.logits(pattern(k)).tolist() for k in range(3)]
    document["self_test"] = {"tolerance": 1e-3, "logits": rows}
    return model


@pytest.fixture
def tiny_folder(tiny: TinyModel, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "model")


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[[int], Path]:
    """A function that writes a random PNG of the network's input size."""

    def write(seed: int) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(pixels).save(path)
        return path

    return write


def write_all(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


Tool = Callable[[list[Path], str], list[np.ndarray | str]]


@pytest.fixture
def tool(sanitized: Path, tmp_path: Path) -> Tool:
    """A function that decodes files in C++ to pixels [H, W, 3], or to the message of a rejected file."""

    def run(paths: list[Path], size: str = "-") -> list[np.ndarray | str]:
        out = tmp_path / "decoded"
        out.mkdir(exist_ok=True)
        command = [str(sanitized / "tests" / "image_tool"), str(out), size, *map(str, paths)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert answer.returncode == 0, answer.stderr[-4000:]
        lines = answer.stdout.splitlines()
        assert len(lines) == len(paths)
        return [
            np.asarray(Image.open(out / f"{i}.ppm")) if line == "ok" else line for i, line in enumerate(lines)
        ]

    return run


@pytest.fixture
def stb(sanitized: Path) -> bool:
    """Whether stb_image decodes, because this machine lacks the headers of libjpeg and libpng."""
    program = [str(sanitized / "resnet18"), "--version"]
    return "stb_image" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
