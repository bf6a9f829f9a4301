"""Read and edit ncnn's `.param` text; unedited parts are written back unchanged.

Layout: a magic number, the numbers of layers and blobs, then one layer a line: type, name, number of inputs
and outputs, the blobs' names, and `key=value` parameters (ncnn's param-and-model-file-structure.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from platform.common.errors import UserError

MAGIC = "7767517"

FEATURE_MASK = 31
"""Key, valid for every layer, of the net options to switch off, as bits (ncnn `src/net.cpp`)."""
NO_WINOGRAD = 1 << 6
"""Bit of `FEATURE_MASK` that disables Winograd's transform of a convolution."""
SHAPE_HINTS = -23330
"""Array key 30, valid for every layer: dims, width, height, channels of each of its outputs."""
WEIGHT_COUNT = 6
"""Key of a Convolution's number of weights."""


@dataclass(frozen=True)
class Layer:
    """One line of a `.param` file."""

    text: str
    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[tuple[int, str], ...]

    def value(self, key: int, default: int = 0) -> int:
        """Return the integer under `key`."""
        return int(dict(self.params).get(key, default))

    def with_value(self, key: int, value: int | str) -> Layer:
        """Return the layer with `key` set; a new key is appended to the line.

        Arrays have negative keys, and their text begins with the length: `4,3,32,32,64`.
        """
        params = dict(self.params)
        if key in params:
            text = self.text.replace(f" {key}={params[key]}", f" {key}={value}", 1)
        else:
            text = f"{self.text} {key}={value}"
        return replace(self, text=text, params=tuple({**params, key: str(value)}.items()))


@dataclass(frozen=True)
class ParamFile:
    """A whole `.param` file."""

    blobs: int
    layers: tuple[Layer, ...]

    def text(self) -> str:
        """Return the file's content."""
        head = f"{MAGIC}\n{len(self.layers)} {self.blobs}\n"
        return head + "".join(f"{layer.text}\n" for layer in self.layers)


def parse(text: str, *, source: str = "model.param") -> ParamFile:
    """Read the text of a `.param` file.

    Raises:
        UserError: the text is not a `.param` file; the message names `source`.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) < 3 or lines[0] != MAGIC:
        raise UserError(f"{source} is not an ncnn .param file: its first line must be {MAGIC}")
    try:
        count, blobs = (int(number) for number in lines[1].split())
        layers = tuple(_layer(line) for line in lines[2:])
    except (ValueError, IndexError):
        raise UserError(f"{source} is damaged: a line is not a valid ncnn layer") from None
    if count != len(layers):
        raise UserError(f"{source} is damaged: it declares {count} layers and contains {len(layers)}")
    return ParamFile(blobs, layers)


def _layer(line: str) -> Layer:
    kind, name, *rest = line.split()
    inputs, outputs = int(rest[0]), int(rest[1])
    names = rest[2 : 2 + inputs + outputs]
    if len(names) != inputs + outputs:
        raise ValueError(line)
    params = []
    for token in rest[2 + inputs + outputs :]:
        key, value = token.split("=", 1)
        params.append((int(key), value))
    return Layer(line, kind, name, tuple(names[:inputs]), tuple(names[inputs:]), tuple(params))
