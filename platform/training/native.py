"""The trainer's kernels in C++: compiled on this machine when first used, and kept in its cache.

A kernel is an improvement, never a need: where there is no compiler, or what it makes does not load,
PyTorch's own operations do the work, and the run's record says why. The source is compiled for the processor
at hand, which takes seconds; the library's name tells apart source, compiler, options, processor and PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch

from platform.atomic import replacing
from platform.compiler import INSTALL, SEARCHED, find_compiler
from platform.data.cache import default_cache_dir
from platform.training.acceleration.precision import cpu_flags

SOURCE = Path(__file__).with_name("batch_norm_relu.cpp")
# Linked without OpenMP's library: PyTorch's own copy serves both, or there would be two pools of threads.
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC")
_TIME_LIMIT_S = 120

_POINTER, _LONG, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_double
_FORWARD = (_LONG, _LONG, _INT, *[_POINTER] * 5, _DOUBLE, *[_POINTER] * 2, _DOUBLE, *[_POINTER] * 2, _INT)
_BACKWARD = (_LONG, _LONG, _INT, *[_POINTER] * 9, _INT)
_SIGNATURES: dict[str, tuple[tuple[type, ...], type | None]] = {
    "batch_norm_scratch": ((_LONG, _LONG), _LONG),
    "batch_norm_forward_f32": (_FORWARD, None),
    "batch_norm_forward_bf16": (_FORWARD, None),
    "batch_norm_backward_f32": (_BACKWARD, None),
    "batch_norm_backward_bf16": (_BACKWARD, None),
}


class KernelsUnavailable(Exception):  # noqa: N818 - nothing went wrong, there is another way
    """The kernels cannot be had here; the message is the reason."""


def load() -> ctypes.CDLL:
    """Return the kernels' library, compiled first if this machine has not done so yet.

    Raises:
        KernelsUnavailable: there is no compiler, or what it makes does not load here.
    """
    found = _load_once()
    if isinstance(found, KernelsUnavailable):
        raise found
    return found


def lack() -> str | None:
    """Return why the kernels cannot be had here, or None."""
    try:
        load()
    except KernelsUnavailable as reason:
        return str(reason)
    return None


@functools.cache
def _load_once() -> ctypes.CDLL | KernelsUnavailable:
    try:
        return _declare(_compiled(_compiler()))
    except KernelsUnavailable as reason:
        return reason
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        text = " ".join(str(error).split())
        return KernelsUnavailable(f"the kernels could not be compiled or loaded: {text}")


def _compiler() -> Path:
    if (found := find_compiler()) is not None:
        return found
    raise KernelsUnavailable(f"no C++ compiler was found (of {SEARCHED}); install one: {INSTALL}")


def _compiled(compiler: Path) -> Path:
    """Return the compiled library, from the cache or by `compiler`."""
    library = _cache() / f"batch_norm_relu-{_fingerprint(compiler)}.so"
    if library.is_file():
        return library
    with replacing(library) as linked, tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "kernels.o"
        for command in (
            [str(compiler), *OPTIONS, "-c", str(SOURCE), "-o", str(compiled)],
            [str(compiler), "-shared", str(compiled), "-o", str(linked)],
        ):
            answer = _run(command)
            if answer.returncode != 0:
                lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
                error = next((line for line in lines if "error" in line), " ".join(lines[-1:]))
                raise KernelsUnavailable(f"{compiler} does not compile the kernels: {error or 'no message'}")
    return library


def _fingerprint(compiler: Path) -> str:
    """Name all that decides what the library is; of the processor too: homes are shared between machines."""
    version = _run([str(compiler), "--version"])
    if version.returncode != 0:
        raise KernelsUnavailable(f"{compiler} does not run; name another one with CXX")
    parts = (SOURCE.read_bytes(), version.stdout, OPTIONS, sorted(cpu_flags()), torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIME_LIMIT_S
    )


def _cache() -> Path:
    """Return the folder of compiled kernels, which nobody but its owner may write: its files are executed.

    Raises:
        KernelsUnavailable: it is another user's, or open to others.
    """
    folder = default_cache_dir() / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise KernelsUnavailable(
            f"{folder} must be this user's, and writable by nobody else: what it holds is executed; remove it"
        )
    return folder


def _declare(library: Path) -> ctypes.CDLL:
    """Load the library and tell ctypes its functions' arguments."""
    loaded = ctypes.CDLL(str(library))
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded
