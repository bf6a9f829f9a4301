"""Run a model folder in the C++ engine within this process, through its shared library."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from platform.common.cores import usable_cores
from platform.common.errors import UserError

Kernels = Literal["auto", "ncnn", "onednn"]
"""Library whose kernels run a network. `auto`: oneDNN if the folder was tuned for it on this processor."""

LIBRARY_VARIABLE = "RESNET_SWEEP_ENGINE_LIBRARY"
"""Environment variable with the path of the shared library, for processes that must not build the engine."""

_ERROR_BYTES = 4096


def engine_version() -> str:
    """Return the versions of the engine and its libraries, as in `0.1.0 (ncnn 1.0, oneDNN 2.6.3)`."""
    version: bytes = _find_library().sweep_engine_version()
    return version.decode()


class EngineModel:
    """A loaded model folder.

    Args:
        folder: the model folder.
        threads: threads of one inference.
        kernels: library whose kernels are used.
        self_test: whether the logits of the self-test images must be those in model.json.

    Raises:
        UserError: the engine cannot be built, rejects the folder, or has no such kernels for it.
    """

    def __init__(
        self, folder: Path, *, threads: int = 1, kernels: Kernels = "auto", self_test: bool = False
    ) -> None:
        self._library = _find_library()
        self._classes = 0
        self._error = ctypes.create_string_buffer(_ERROR_BYTES)
        self._model = self._library.sweep_engine_load(
            os.fsencode(folder), threads, kernels.encode(), int(self_test), self._error, _ERROR_BYTES
        )
        if not self._model:
            raise UserError(f"{folder}: {self._message()}")
        self._classes = self._library.sweep_engine_classes(self._model)

    @property
    def kernels(self) -> str:
        """Library whose kernels are in use: `ncnn` or `onednn`."""
        name: bytes = self._library.sweep_engine_kernels(self._model)
        return name.decode()

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [N, classes] of normalized images [N, C, H, W], computed as one batch.

        Raises:
            UserError: the inference failed.
        """
        contiguous = np.ascontiguousarray(images, np.float32)
        logits = np.empty((len(images), self._classes), np.float32)
        failed = self._library.sweep_engine_infer(
            self._model, contiguous.ctypes.data, len(images), logits.ctypes.data, self._error, _ERROR_BYTES
        )
        if failed:
            raise UserError(self._message())
        return logits

    def infer_each(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [N, classes] of normalized images [N, C, H, W], computed one per usable core."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(usable_cores()) as pool:
            return np.stack(list(pool.map(lambda image: self.infer(image[None])[0], images)))

    def _message(self) -> str:
        return self._error.value.decode(errors="replace")

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._library.sweep_engine_free(self._model)


def _find_library() -> ctypes.CDLL:
    if path := os.environ.get(LIBRARY_VARIABLE):
        return _load_library(path)
    # Imported late: a measurement of the engine's startup cost must not include the build tools.
    from deploy.engine_build.engine import ensure_engine

    return _load_library(str(ensure_engine().library))


@cache
def _load_library(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise UserError(f"the engine's library cannot be loaded: {error}; run: make engine") from None
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.sweep_engine_version.restype = text
    library.sweep_engine_load.argtypes = [text, ctypes.c_int, text, ctypes.c_int, text, ctypes.c_size_t]
    library.sweep_engine_load.restype = pointer
    library.sweep_engine_free.argtypes = [pointer]
    library.sweep_engine_free.restype = None
    library.sweep_engine_kernels.argtypes = [pointer]
    library.sweep_engine_kernels.restype = text
    library.sweep_engine_classes.argtypes = [pointer]
    library.sweep_engine_classes.restype = ctypes.c_int
    library.sweep_engine_infer.argtypes = [pointer, pointer, ctypes.c_int, pointer, text, ctypes.c_size_t]
    library.sweep_engine_infer.restype = ctypes.c_int
    return library
