"""Load a network in any runtime, as a callable from image to logits."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.engine_build.engine_model import EngineModel, engine_version
from platform.common.errors import UserError

Runtime = Literal["engine", "onnxruntime", "openvino", "torch"]
Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A normalized image [1, C, H, W] -> its logits [classes]."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A runtime with variant and precision."""

    runtime: Runtime
    precision: str
    variant: str = ""

    @property
    def name(self) -> str:
        """Runtime and variant, as in `torch channels_last`."""
        return f"{self.runtime} {self.variant}".strip()


ROWS = (
    Row(runtime="engine", precision="fp32"),
    Row(runtime="onnxruntime", precision="fp32"),
    Row(runtime="openvino", precision="fp32"),
    Row(runtime="torch", precision="fp32", variant="eager"),
    Row(runtime="torch", precision="fp32", variant="channels_last"),
    Row(runtime="engine", precision="bf16"),
    Row(runtime="openvino", precision="bf16"),
    Row(runtime="torch", precision="bf16", variant="channels_last"),
    Row(runtime="engine", precision="int8"),
    Row(runtime="onnxruntime", precision="int8"),
    Row(runtime="openvino", precision="int8"),
)
"""The compared rows. onnxruntime has no bf16 kernels for CPUs; int8 in torch requires another workflow."""


def rows_for(precisions: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the rows of these precisions, in their order.

    Raises:
        UserError: a required package is not installed.
    """
    rows = tuple(row for precision in precisions for row in ROWS if row.precision == precision)
    missing = sorted(
        {name for name in ("onnx", "onnxruntime", "openvino") if importlib.util.find_spec(name) is None}
    )
    if missing:
        raise UserError(
            f"the comparison requires {', '.join(missing)}; install the dependency group `peers` with: "
            "uv pip install --group peers"
        )
    return rows


def version_of(runtime: Runtime) -> str:
    """Return the version of the runtime's package, or of the engine."""
    return engine_version() if runtime == "engine" else version(runtime)


def load(row: Row, path: Path, *, threads: int) -> Infer:
    """Load a network.

    Args:
        row: runtime and precision.
        path: the model folder (engine), the ONNX file (onnxruntime, openvino), the trained model (torch).
        threads: threads of one inference.
    """
    return _LOADERS[row.runtime](row, path, threads)


def import_runtime(runtime: Runtime) -> None:
    """Import the runtime's package and our wrapper, to time the import separately from loading."""
    for name in _MODULES.get(runtime, (runtime,)):
        importlib.import_module(name)


_MODULES: dict[Runtime, tuple[str, ...]] = {
    "engine": ("deploy.engine_build.engine_model",),
    "torch": ("torch", "platform.models.trained"),
}


def _engine(_: Row, path: Path, threads: int) -> Infer:
    model = EngineModel(path, threads=threads)
    return lambda image: model.infer(image)[0]


def _onnxruntime(_: Row, path: Path, threads: int) -> Infer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0][0]


def _openvino(row: Row, path: Path, threads: int) -> Infer:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # By default it computes in bf16 if the processor can, also for fp32 files.
        "INFERENCE_PRECISION_HINT": "bf16" if row.precision == "bf16" else "f32",
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda image: np.array(next(iter(request.infer([image]).values()))[0], np.float32)


def _torch(row: Row, path: Path, threads: int) -> Infer:
    import torch

    from platform.models.trained import load_trained_model

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if row.precision == "bf16" else torch.float32
    layout: Any = torch.channels_last if row.variant == "channels_last" else torch.contiguous_format
    network: Any = load_trained_model(path).network()
    network = network.to(dtype=dtype, memory_format=layout)

    def infer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(image).to(dtype=dtype, memory_format=layout)
            logits: NDArray[np.float32] = network(batch)[0].float().numpy()
            return logits

    return infer


_LOADERS: dict[Runtime, Callable[[Row, Path, int], Infer]] = {
    "engine": _engine,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
