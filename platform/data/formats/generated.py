"""Procedurally generated 32x32 images of ten classes, identical on every machine.

Each image shows one shape (the class) at a random position, size, angle and color, over a background of
another color with a gradient, stripes, a disc as distractor, and noise. Position is independent of the class
and color nearly so: a linear model on raw pixels stays far below 60 %, a small ResNet exceeds 85 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from platform.data.dataset import DatasetSource, Images, Labels, Notify, RawDataset, Split

# Part of the cache key: increase it whenever the images change.
VERSION = 2
TRAIN_IMAGES = 12_000
TEST_IMAGES = 2_000
SIZE = 32

# float32 throughout, which numpy's type hints cannot express.
Floats = NDArray[Any]

CLASS_NAMES = ("disc", "ring", "square", "triangle", "cross", "star", "bars", "crescent", "half_disc", "dots")


def generated_source() -> DatasetSource:
    """Return the generated dataset as a source for the cache."""
    return DatasetSource(
        key="generated", fingerprint=f"version {VERSION}, {TRAIN_IMAGES} + {TEST_IMAGES}", read=read_generated
    )


def read_generated(notify: Notify) -> RawDataset:
    """Generate both splits, in about two seconds on one core."""
    notify(f"generating {TRAIN_IMAGES + TEST_IMAGES:,} images")
    return RawDataset(
        name="generated",
        label="generated",
        class_names=CLASS_NAMES,
        train=draw_images(TRAIN_IMAGES, seed=1),
        test=draw_images(TEST_IMAGES, seed=2),
    )


def draw_images(count: int, *, seed: int) -> Split:
    """Generate `count` images (at least 1) with balanced classes in random order."""
    rng = np.random.default_rng([VERSION, seed])
    labels: Labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASS_NAMES))
    images: Images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    for start in range(0, count, 1000):
        chunk = slice(start, start + 1000)
        images[chunk] = _draw_chunk(labels[chunk], rng)
    return Split(images, labels)


def _draw_chunk(labels: Labels, rng: np.random.Generator) -> Images:
    """Return uint8 [n, 3, SIZE, SIZE]."""
    n = len(labels)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32) - np.float32((SIZE - 1) / 2)

    def uniform(low: float, high: float, *shape: int) -> Floats:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    # Coordinates relative to the shape: unit radius, rotated, slightly squeezed.
    radius = uniform(5.5, 11, 1, 1)
    angle = uniform(0, 2 * np.pi, 1, 1)
    squeeze = uniform(0.8, 1.0, 1, 1)
    y = (rows - uniform(-5, 5, 1, 1)) / radius
    x = (columns - uniform(-5, 5, 1, 1)) / radius
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) / squeeze
    distance = np.empty((n, SIZE, SIZE), np.float32)
    for label in range(len(CLASS_NAMES)):
        chosen = labels == label
        distance[chosen] = _signed_distance(label, u[chosen], v[chosen])
    shape = np.clip(0.5 - distance * radius, 0, 1)[:, None]

    distractor_radius = uniform(1.5, 3.5, 1, 1)
    distractor = np.hypot(rows - uniform(-16, 16, 1, 1), columns - uniform(-16, 16, 1, 1)) - distractor_radius
    distractor = np.clip(0.5 - distractor, 0, 1)[:, None]

    # A dark background and a brighter shape. The shape's hue is weakly correlated with its class, so that
    # accuracy rises in the first epochs of a short run; hue alone does not separate the classes.
    background = uniform(0.05, 0.55, 3, 1, 1)
    hues = 2 * np.pi * (labels / len(CLASS_NAMES) + rng.normal(0, 0.13, n))
    offsets = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
    tint = np.cos(hues[:, None] - offsets).astype(np.float32)[:, :, None, None]
    foreground = background + uniform(0.15, 0.45, 1, 1, 1) + 0.18 * tint
    pixels = background + 0.15 * _waves(rows, columns, uniform)
    pixels = pixels + distractor * (uniform(0.1, 0.9, 3, 1, 1) - pixels)
    pixels = pixels + shape * (foreground + 0.08 * _waves(rows, columns, uniform) - pixels)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * uniform(0.03, 0.16, 1, 1, 1)
    images: Images = (np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return images


def _waves(rows: Floats, columns: Floats, uniform: Callable[..., Floats]) -> Floats:
    """Return stripes or gradients (long waves) at random angles, float32 [n, 1, SIZE, SIZE] in [-1, 1]."""
    angle, phase = uniform(0, 2 * np.pi, 1, 1), uniform(0, 2 * np.pi, 1, 1)
    frequency = 2 * np.pi / uniform(4, 60, 1, 1)
    waves: Floats = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * frequency + phase)
    return waves[:, None]


def _signed_distance(label: int, u: Floats, v: Floats) -> Floats:
    """Return the approximate signed distance to the outline in units of the radius; negative inside."""
    r: Floats = np.hypot(u, v)
    distance: Floats
    match CLASS_NAMES[label]:
        case "disc":
            distance = r - 0.8
        case "ring":
            distance = np.abs(r - 0.72) - 0.2
        case "square":
            distance = np.maximum(np.abs(u), np.abs(v)) - 0.72
        case "triangle":
            distance = np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.48
        case "cross":
            flat = np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.27)
            distance = np.minimum(flat, np.maximum(np.abs(v) - 0.9, np.abs(u) - 0.27))
        case "star":
            distance = (r - 0.62 - 0.3 * np.cos(5 * np.arctan2(v, u))) * 0.6
        case "bars":
            distance = np.maximum(np.abs(np.abs(u) - 0.55) - 0.22, np.abs(v) - 0.8)
        case "crescent":
            distance = np.maximum(r - 0.88, 0.72 - np.hypot(u - 0.45, v))
        case "half_disc":
            distance = np.maximum(np.hypot(u, v + 0.35) - 0.95, -v - 0.35)
        case _:
            centers = [(0.55 * np.cos(a), 0.55 * np.sin(a)) for a in (0.3, 2.4, 4.5)]
            distance = np.minimum.reduce([np.hypot(u - cx, v - cy) for cx, cy in centers]) - 0.34
    return distance
