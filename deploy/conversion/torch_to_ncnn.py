"""Convert PyTorch networks to ncnn: trace the network, run pnnx on the trace, and check the result.

pnnx exits with status 0 even if it cannot convert a layer, and then writes the layer under its PyTorch name,
which ncnn does not support. pnnx's Python module is not used: it ignores failures and imports generated code.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import warnings
from pathlib import Path

import torch
from torch import nn

from deploy.conversion.ncnn_net import INPUT_BLOB, OUTPUT_BLOB
from deploy.conversion.param_file import ParamFile, parse
from platform.common.errors import UserError

TIMEOUT_S = 600
# ncnn's layer types are single words; `Tensor.slice`, `aten::cummax`, `pnnx.Expression` are not.
_NCNN_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_COMPLAINT = re.compile(r"not supported|unsupported|not implemented|error|fail|abort", re.IGNORECASE)


def convert(network: nn.Module, *, input_shape: tuple[int, int, int], scratch: Path) -> tuple[Path, Path]:
    """Convert a network in eval mode, float32, to ncnn's two files.

    Args:
        network: maps [1, C, H, W] to [1, classes].
        input_shape: C, H, W.
        scratch: an existing empty folder for pnnx's files.

    Returns:
        the `.param` and the `.bin` file, in `scratch`. Their input blob is `in0`, their output blob `out0`.

    Raises:
        UserError: ncnn does not support a layer of the network, or pnnx failed.
    """
    shape = (1, *input_shape)
    trace = scratch / "network.pt"
    with warnings.catch_warnings(), torch.no_grad():
        # torch 2.13 deprecates tracing, but pnnx does not read the files of its successors.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network, torch.zeros(shape))  # type: ignore[no-untyped-call]
        traced.save(str(trace))
    param, weights = scratch / "network.ncnn.param", scratch / "network.ncnn.bin"
    dimensions = ",".join(str(size) for size in shape)
    # fp16=1, its default, would round the weights; optlevel 0 and 1 crash.
    log = _run([str(find_pnnx()), str(trace), f"inputshape=[{dimensions}]", "fp16=0", "optlevel=2"], scratch)
    for file in (param, weights):
        if not file.is_file() or file.stat().st_size == 0:
            raise UserError(f"pnnx wrote no {file.name}; {_last_lines(log)}")
    check_converted(parse(param.read_text(encoding="utf-8"), source=param.name), log=log)
    return param, weights


def find_pnnx() -> Path:
    """Return the path of the pnnx program in its Python package.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("pnnx")
    if spec is not None and spec.origin is not None:
        for name in ("pnnx", "pnnx.exe"):
            program = Path(spec.origin).with_name(name)
            if program.is_file():
                return program
    raise UserError("the export requires pnnx, which is not installed; install this project's requirements")


def check_converted(param: ParamFile, *, log: str = "") -> None:
    """Check that ncnn supports every layer, and that the only input and output are `in0` and `out0`.

    Raises:
        UserError: a check failed; the message names the layers and includes pnnx's messages about them.
    """
    unknown = sorted({layer.type for layer in param.layers if not _NCNN_TYPE.fullmatch(layer.type)})
    if unknown:
        complaints = [line for line in log.splitlines() if _COMPLAINT.search(line)]
        details = f" (pnnx: {'; '.join(complaints)})" if complaints else ""
        raise UserError(
            f"the network cannot be converted: ncnn has no layer for {', '.join(unknown)}{details}; "
            "replace these operations in the network"
        )
    inputs = [name for layer in param.layers if layer.type == "Input" for name in layer.outputs]
    read = {name for layer in param.layers for name in layer.inputs}
    outputs = [name for layer in param.layers for name in layer.outputs if name not in read]
    if inputs != [INPUT_BLOB] or outputs != [OUTPUT_BLOB]:
        raise UserError(
            f"a classifier has one input and one output; pnnx found inputs {inputs} and outputs {outputs}"
        )


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"pnnx did not finish within {TIMEOUT_S} s; is the machine overloaded?") from None
    except OSError as error:
        raise UserError(f"cannot run pnnx ({command[0]}): {error.strerror}") from None
    if done.returncode != 0:
        raise UserError(f"pnnx failed with status {done.returncode}; {_last_lines(done.stdout)}")
    return done.stdout


def _last_lines(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "its last lines: " + " | ".join(lines[-3:]) if lines else "it printed nothing"
