"""Crops, flips, holes and mixtures: image by image against the plain definition, and as distributions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from platform.data.dataset import Split
from platform.data.normalization import Normalization, compute
from platform.training.config import AugmentConfig
from platform.training.inputs.augment import (
    Batch,
    EpochDraw,
    EvaluationTable,
    Place,
    TrainingTable,
    draw_epoch,
    table_bytes_per_image,
)

CPU = torch.device("cpu")
COUNT = 500
WHOLE = slice(0, COUNT)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(5)
    return Split(rng.integers(0, 256, (COUNT, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, COUNT))


def config_of(**changes: Any) -> AugmentConfig:
    return AugmentConfig.model_validate(changes)


def draw_of(config: AugmentConfig, *, images: int = COUNT, seed: int = 0, epoch: int = 0) -> EpochDraw:
    return draw_epoch(config, images=images, size=(32, 32), steps=4, seed=seed, epoch=epoch, device=CPU)


def batch_of(split: Split, normalization: Normalization, config: AugmentConfig, draw: EpochDraw) -> Batch:
    table = TrainingTable(split, normalization, config, device=CPU)
    return table.batch(draw, Place.of(0, WHOLE, CPU), WHOLE)


def shares_of(draw: EpochDraw) -> torch.Tensor:
    assert draw.mixture is not None
    return draw.mixture.shares


def plain_augmentation(
    split: Split, normalization: Normalization, config: AugmentConfig, draw: EpochDraw
) -> np.ndarray:
    """Augment image by image, as the papers say it."""
    margin, length = config.crop_padding, config.cutout.length
    channel = normalization.mean.ndim == 1
    out = []
    for row, index in enumerate(draw.order.tolist()):
        pixels = split.images[index] / 255
        # He et al. take the mean image away first; a channel's mean is the same anywhere.
        image = pixels if channel else (pixels - normalization.mean)
        image = image[:, :, ::-1] if draw.flip[row] else image
        image = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
        dy, dx = int(draw.dy[row]), int(draw.dx[row])
        image = image[:, dy : dy + 32, dx : dx + 32]
        if channel:
            image = image - normalization.mean[:, None, None]
        image = image / normalization.std[:, None, None]
        for y, x in zip(draw.hole_y[row].tolist(), draw.hole_x[row].tolist(), strict=True):
            top, left = y - length // 2, x - length // 2
            image[:, max(0, top) : max(0, top + length), max(0, left) : max(0, left + length)] = 0
        out.append(image)
    return np.stack(out)


@pytest.mark.parametrize("kind", ["channel", "pixel"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_padding": 0},
        {"flip": False},
        {"cutout": {"length": 8}},
        {"cutout": {"length": 7, "holes": 3}},
        {"crop_padding": 2, "cutout": {"length": 16}},
        {"crop_padding": 0, "flip": False},
    ],
    ids=str,
)
def test_a_batch_equals_image_by_image_augmentation(split: Split, changes: dict[str, Any], kind: Any) -> None:
    config, normalization = config_of(**changes), compute(split.images, kind)
    draw = draw_of(config)
    batch = batch_of(split, normalization, config, draw)
    np.testing.assert_allclose(
        batch.images.numpy(), plain_augmentation(split, normalization, config, draw), atol=2e-5
    )
    assert batch.labels.tolist() == split.labels[draw.order.numpy()].tolist()
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_training_and_evaluation_see_the_same_pixels(split: Split) -> None:
    config, normalization = config_of(crop_padding=0, flip=False), compute(split.images, "pixel")
    draw = draw_of(config)
    trained = batch_of(split, normalization, config, draw).images
    ((evaluated, labels),) = EvaluationTable(split, normalization, device=CPU).batches(WHOLE, COUNT)
    torch.testing.assert_close(trained, evaluated[draw.order])
    assert labels.tolist() == split.labels.tolist()


def test_every_epoch_is_a_permutation_and_another_one() -> None:
    first, second = draw_of(config_of()).order, draw_of(config_of(), epoch=1).order
    assert sorted(first.tolist()) == list(range(COUNT)) == sorted(second.tolist())
    assert not torch.equal(first, second)


def test_the_draw_depends_on_seed_and_epoch_alone() -> None:
    config = config_of(cutout={"length": 8}, mixup=0.2)
    torch.manual_seed(1)
    first = draw_of(config, seed=3, epoch=7)
    torch.manual_seed(2)
    again = draw_of(config, seed=3, epoch=7)
    other = draw_of(config, seed=4, epoch=7)
    for value, repeated in zip(first._tensors(), again._tensors(), strict=True):
        assert torch.equal(value, repeated)
    for mine, its in ((first.dy, other.dy), (shares_of(first), shares_of(other))):
        assert not torch.equal(mine, its)


def test_switching_cutout_on_leaves_order_and_crops_as_they_were() -> None:
    plain, with_holes = draw_of(config_of()), draw_of(config_of(cutout={"length": 8}))
    assert torch.equal(plain.order, with_holes.order)
    assert torch.equal(plain.dy, with_holes.dy)
    assert torch.equal(plain.flip, with_holes.flip)


def test_crop_offsets_are_uniform_and_independent_and_half_the_images_are_mirrored() -> None:
    draw = draw_of(config_of(), images=40_000)
    # 81 equally likely positions: the chi-square of 80 degrees of freedom lies below 125 with p = 0.999.
    counts = np.bincount((draw.dy * 9 + draw.dx).numpy(), minlength=81)
    assert len(counts) == 81
    expected = 40_000 / 81
    assert ((counts - expected) ** 2 / expected).sum() < 125
    assert abs(draw.flip.double().mean().item() - 0.5) < 4 * 0.5 / 200
    together = np.corrcoef([draw.flip.numpy(), draw.dy.numpy(), draw.dx.numpy()])
    assert np.abs(together - np.eye(3)).max() < 0.02


def test_holes_are_centered_anywhere_and_clipped_at_the_border() -> None:
    config = config_of(crop_padding=0, flip=False, cutout={"length": 16})
    rng = np.random.default_rng(0)
    # White images, normalized to 1: zeros are the hole.
    white = Split(np.full((4000, 3, 32, 32), 255, np.uint8), rng.integers(0, 10, 4000))
    normalization = Normalization(np.zeros(3, np.float32), np.ones(3, np.float32))
    table = TrainingTable(white, normalization, config, device=CPU)
    draw = draw_of(config, images=4000)
    images = table.batch(draw, Place.of(0, slice(0, 4000), CPU), slice(0, 4000)).images
    holes = images == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    area = holes[:, 0].sum(dim=(1, 2))
    # A center in the corner leaves a quarter of the square; a contained hole would always be whole.
    assert (int(area.min()), int(area.max())) == (64, 256)
    # Mean side of a clipped hole: (8 + 9 + ... + 15 + 17 * 16 + 15 + ... + 9) / 32 = 14.0 over both axes.
    sides = [min(32, center + 8) - max(0, center - 8) for center in range(32)]
    assert area.double().mean().item() == pytest.approx(np.mean(sides) ** 2, rel=0.02)
    for centers in (draw.hole_y, draw.hole_x):
        counts = np.bincount(centers.flatten().numpy(), minlength=32)
        assert len(counts) == 32
        # 31 degrees of freedom: below 61 with p = 0.999.
        assert ((counts - 125) ** 2 / 125).sum() < 61


def test_mixup_adds_the_next_image_of_the_batch_with_one_share_per_batch(split: Split) -> None:
    config = config_of(mixup=0.4)
    normalization = compute(split.images, "channel")
    draw = draw_of(config)
    plain = batch_of(split, normalization, config, replace(draw, mixture=None))
    mixed = batch_of(split, normalization, config, draw)
    share = shares_of(draw)[0]
    assert mixed.share == share
    torch.testing.assert_close(
        mixed.images, share * plain.images + (1 - share) * plain.images.roll(-1, 0), atol=1e-5, rtol=1e-5
    )
    assert mixed.other_labels is not None
    assert torch.equal(mixed.other_labels, plain.labels.roll(-1))


def test_mixup_shares_follow_the_beta_distribution() -> None:
    draw = draw_epoch(
        config_of(mixup=0.2), images=10, size=(32, 32), steps=20_000, seed=0, epoch=0, device=CPU
    )
    shares = shares_of(draw).numpy()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.03)


def test_cutmix_is_torchvisions_with_one_rectangle_per_batch(split: Split) -> None:
    config = config_of(cutmix=1.0, cutout={"length": 8})
    draw = draw_of(config)
    mixture = draw.mixture
    assert mixture is not None
    top, left, bottom, right = mixture.boxes[0].tolist()
    assert 0 < (bottom - top) * (right - left) < 32 * 32, "a rectangle that shows"

    class Given(v2.CutMix):
        def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
            return {"box": (left, top, right, bottom), "lam_adjusted": mixture.shares[0].item()}

    normalization = compute(split.images, "channel")
    plain = batch_of(split, normalization, config, replace(draw, mixture=None))
    mixed = batch_of(split, normalization, config, draw)
    # torchvision takes the image before, this project the one after: reversed, they are the same.
    images, labels = Given(num_classes=10)(plain.images.flip(0), plain.labels.flip(0))
    assert torch.equal(mixed.images, images.flip(0))
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    assert mixed.share is not None
    assert mixed.other_labels is not None
    share = mixed.share
    weights = share * one_hot(mixed.labels, 10) + (1 - share) * one_hot(mixed.other_labels, 10)
    torch.testing.assert_close(weights, labels.flip(0))


def test_rectangles_are_drawn_as_torchvision_draws_them() -> None:
    steps = 20_000
    draw = draw_epoch(
        config_of(cutmix=1.0), images=10, size=(32, 32), steps=steps, seed=0, epoch=0, device=CPU
    )
    assert draw.mixture is not None
    boxes = draw.mixture.boxes.numpy()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    np.testing.assert_allclose(draw.mixture.shares.numpy(), 1 - area / 1024, atol=1e-6)
    torch.manual_seed(0)
    theirs = v2.CutMix(alpha=1.0, num_classes=10)
    image = torch.zeros(1, 3, 32, 32)
    found = [theirs.make_params([image]) for _ in range(5000)]
    shares = np.array([params["lam_adjusted"] for params in found])
    # The standard error of a mean of 5,000 with deviation 0.29 is 0.004.
    assert draw.mixture.shares.mean().item() == pytest.approx(shares.mean(), abs=0.016)
    assert draw.mixture.shares.std().item() == pytest.approx(shares.std(), abs=0.016)
    centers = np.array([params["box"] for params in found]).mean(axis=0)[[1, 0, 3, 2]]
    np.testing.assert_allclose(boxes.mean(axis=0), centers, atol=0.7)


def test_with_both_each_batch_is_mixed_in_one_way_by_a_fair_coin() -> None:
    config = config_of(cutmix=1.0, mixup=0.4)
    draw = draw_epoch(config, images=10, size=(32, 32), steps=4000, seed=0, epoch=0, device=CPU)
    mixture = draw.mixture
    assert mixture is not None
    has_box = (mixture.boxes[:, 2:] > mixture.boxes[:, :2]).all(dim=1)
    assert not (has_box & (mixture.blends < 1)).any()
    assert torch.equal(mixture.shares[mixture.blends < 1], mixture.blends[mixture.blends < 1])
    # 4 standard deviations of a fair coin; a batch of CutMix whose rectangle is empty is not mixed at all.
    assert (mixture.blends < 1).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_a_shorter_epoch_is_the_beginning_of_a_longer_one() -> None:
    config = config_of(cutmix=1.0, mixup=0.4)
    long, short = (
        draw_epoch(config, images=10, size=(32, 32), steps=steps, seed=0, epoch=0, device=CPU).mixture
        for steps in (9, 4)
    )
    assert long is not None
    assert short is not None
    for whole, part in zip(long, short, strict=True):
        assert torch.equal(whole[:4], part)


@pytest.mark.parametrize("mixture", [{}, {"mixup": 0.3}, {"cutmix": 1.0}], ids=str)
def test_workers_together_see_the_batch_of_one_worker(split: Split, mixture: dict[str, float]) -> None:
    config = config_of(cutout={"length": 8}, **mixture)
    table = TrainingTable(split, compute(split.images, "channel"), config, device=CPU)
    draw = draw_of(config)
    place = Place.of(1, slice(128, 192), CPU)
    whole = table.batch(draw, place, slice(0, 64))
    parts = [table.batch(draw, place, part) for part in (slice(0, 22), slice(22, 43), slice(43, 64))]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    if whole.other_labels is not None:
        others = [part.other_labels for part in parts if part.other_labels is not None]
        assert torch.equal(whole.other_labels, torch.cat(others))


def test_evaluation_takes_every_image_of_its_rows_once(split: Split) -> None:
    table = EvaluationTable(split, compute(split.images, "channel"), device=CPU)
    sizes = [len(labels) for _, labels in table.batches(slice(3, 250), 100)]
    assert sizes == [100, 100, 47]


def test_read_only_images_are_accepted(split: Split) -> None:
    images = split.images.copy()
    images.setflags(write=False)
    table = EvaluationTable(Split(images, split.labels), compute(images, "channel"), device=CPU)
    assert len(table) == COUNT


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"crop_padding": 0}])
def test_what_an_image_takes_in_a_table(split: Split, changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    table = TrainingTable(split, compute(split.images, "channel"), config, device=CPU)
    assert table._windows.untyped_storage().nbytes() == COUNT * table_bytes_per_image(config, (3, 32, 32))
