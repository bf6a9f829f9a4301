"""Augmentation: compared with a per-image reference implementation, and tested as distributions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from platform.data.dataset import Split
from platform.data.normalization import Normalization, compute_normalization
from platform.training.config import AugmentConfig
from platform.training.inputs.augment import (
    Batch,
    DeviceEvaluationSet,
    DeviceTrainingSet,
    EpochRandomness,
    device_bytes_per_image,
    sample_randomness,
)
from tests.training.inputs.examples import position_of

CPU = torch.device("cpu")
COUNT = 500
WHOLE = slice(0, COUNT)


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(5)
    return Split(rng.integers(0, 256, (COUNT, 3, 32, 32)).astype(np.uint8), rng.integers(0, 10, COUNT))


def config_of(**changes: Any) -> AugmentConfig:
    return AugmentConfig.model_validate(changes)


def randomness_of(
    config: AugmentConfig, *, images: int = COUNT, seed: int = 0, epoch: int = 0
) -> EpochRandomness:
    return sample_randomness(
        config, images=images, size=(32, 32), steps=4, seed=seed, epoch=epoch, device=CPU
    )


def batch_of(
    split: Split, normalization: Normalization, config: AugmentConfig, randomness: EpochRandomness
) -> Batch:
    dataset = DeviceTrainingSet(split, normalization, config, device=CPU)
    return dataset.batch(randomness, position_of(0, WHOLE), WHOLE)


def label_weights_of(randomness: EpochRandomness) -> torch.Tensor:
    assert randomness.mix is not None
    return randomness.mix.label_weights


def plain_augmentation(
    split: Split, normalization: Normalization, config: AugmentConfig, randomness: EpochRandomness
) -> np.ndarray:
    """Augment image by image, following the papers."""
    margin, length = config.crop_padding, config.cutout.length
    channel = normalization.mean.ndim == 1
    out = []
    for row, index in enumerate(randomness.order.tolist()):
        pixels = split.images[index] / 255
        # He et al. subtract the mean image before cropping; a channel mean does not depend on the position.
        image = pixels if channel else (pixels - normalization.mean)
        image = image[:, :, ::-1] if randomness.flip[row] else image
        image = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
        dy, dx = int(randomness.dy[row]), int(randomness.dx[row])
        image = image[:, dy : dy + 32, dx : dx + 32]
        if channel:
            image = image - normalization.mean[:, None, None]
        image = image / normalization.std[:, None, None]
        for y, x in zip(randomness.hole_y[row].tolist(), randomness.hole_x[row].tolist(), strict=True):
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
    config, normalization = config_of(**changes), compute_normalization(split.images, kind)
    randomness = randomness_of(config)
    batch = batch_of(split, normalization, config, randomness)
    np.testing.assert_allclose(
        batch.images.numpy(), plain_augmentation(split, normalization, config, randomness), atol=2e-5
    )
    assert batch.labels.tolist() == split.labels[randomness.order.numpy()].tolist()
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_training_without_augmentation_has_the_pixels_of_evaluation(split: Split) -> None:
    config, normalization = (
        config_of(crop_padding=0, flip=False),
        compute_normalization(split.images, "pixel"),
    )
    randomness = randomness_of(config)
    trained = batch_of(split, normalization, config, randomness).images
    ((evaluated, labels),) = DeviceEvaluationSet(split, normalization, device=CPU).batches(WHOLE, COUNT)
    torch.testing.assert_close(trained, evaluated[randomness.order])
    assert labels.tolist() == split.labels.tolist()


def test_each_epoch_is_a_different_permutation() -> None:
    first, second = randomness_of(config_of()).order, randomness_of(config_of(), epoch=1).order
    assert sorted(first.tolist()) == list(range(COUNT)) == sorted(second.tolist())
    assert not torch.equal(first, second)


def test_randomness_depends_only_on_seed_and_epoch() -> None:
    config = config_of(cutout={"length": 8}, mixup=0.2)
    torch.manual_seed(1)
    first = randomness_of(config, seed=3, epoch=7)
    torch.manual_seed(2)
    again = randomness_of(config, seed=3, epoch=7)
    other = randomness_of(config, seed=4, epoch=7)
    for value, repeated in zip(first._tensors(), again._tensors(), strict=True):
        assert torch.equal(value, repeated)
    assert not torch.equal(first.dy, other.dy)
    assert not torch.equal(label_weights_of(first), label_weights_of(other))


def test_enabling_cutout_does_not_change_order_and_crops() -> None:
    plain, with_holes = randomness_of(config_of()), randomness_of(config_of(cutout={"length": 8}))
    assert torch.equal(plain.order, with_holes.order)
    assert torch.equal(plain.dy, with_holes.dy)
    assert torch.equal(plain.flip, with_holes.flip)


def test_crop_offsets_are_uniform_and_independent_and_half_the_images_are_mirrored() -> None:
    randomness = randomness_of(config_of(), images=40_000)
    # 81 equally likely positions: the chi-square of 80 degrees of freedom lies below 125 with p = 0.999.
    counts = np.bincount((randomness.dy * 9 + randomness.dx).numpy(), minlength=81)
    assert len(counts) == 81
    expected = 40_000 / 81
    assert ((counts - expected) ** 2 / expected).sum() < 125
    assert abs(randomness.flip.double().mean().item() - 0.5) < 4 * 0.5 / 200
    correlations = np.corrcoef([randomness.flip.numpy(), randomness.dy.numpy(), randomness.dx.numpy()])
    assert np.abs(correlations - np.eye(3)).max() < 0.02


def test_holes_are_centered_anywhere_and_clipped_at_the_border() -> None:
    config = config_of(crop_padding=0, flip=False, cutout={"length": 16})
    rng = np.random.default_rng(0)
    # White images, normalized to 1: zeros mark the hole.
    white = Split(np.full((4000, 3, 32, 32), 255, np.uint8), rng.integers(0, 10, 4000))
    normalization = Normalization(np.zeros(3, np.float32), np.ones(3, np.float32))
    dataset = DeviceTrainingSet(white, normalization, config, device=CPU)
    randomness = randomness_of(config, images=4000)
    images = dataset.batch(randomness, position_of(0, slice(0, 4000)), slice(0, 4000)).images
    holes = images == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    area = holes[:, 0].sum(dim=(1, 2))
    # A hole centered in a corner is clipped to a quarter of its area.
    assert (int(area.min()), int(area.max())) == (64, 256)
    # Mean side of a clipped hole: (8 + 9 + ... + 15 + 17 * 16 + 15 + ... + 9) / 32 = 14.0 over both axes.
    sides = [min(32, center + 8) - max(0, center - 8) for center in range(32)]
    assert area.double().mean().item() == pytest.approx(np.mean(sides) ** 2, rel=0.02)
    for centers in (randomness.hole_y, randomness.hole_x):
        counts = np.bincount(centers.flatten().numpy(), minlength=32)
        assert len(counts) == 32
        # 31 degrees of freedom: below 61 with p = 0.999.
        assert ((counts - 125) ** 2 / 125).sum() < 61


def test_mixup_blends_each_image_with_the_next_one_using_one_weight_per_batch(split: Split) -> None:
    config = config_of(mixup=0.4)
    normalization = compute_normalization(split.images, "channel")
    randomness = randomness_of(config)
    plain = batch_of(split, normalization, config, replace(randomness, mix=None))
    mixed = batch_of(split, normalization, config, randomness)
    weight = label_weights_of(randomness)[0]
    assert mixed.label_weight == weight
    torch.testing.assert_close(
        mixed.images, weight * plain.images + (1 - weight) * plain.images.roll(-1, 0), atol=1e-5, rtol=1e-5
    )
    assert mixed.partner_labels is not None
    assert torch.equal(mixed.partner_labels, plain.labels.roll(-1))


def test_mixup_weights_follow_the_beta_distribution() -> None:
    randomness = sample_randomness(
        config_of(mixup=0.2), images=10, size=(32, 32), steps=20_000, seed=0, epoch=0, device=CPU
    )
    weights = label_weights_of(randomness).numpy()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / (4 * 1.4), rel=0.03)


def test_cutmix_equals_torchvisions_with_one_rectangle_per_batch(split: Split) -> None:
    config = config_of(cutmix=1.0, cutout={"length": 8})
    randomness = randomness_of(config)
    mix = randomness.mix
    assert mix is not None
    top, left, bottom, right = mix.boxes[0].tolist()
    assert 0 < (bottom - top) * (right - left) < 32 * 32, (
        "the rectangle must be neither empty nor the whole image"
    )

    class FixedCutMix(v2.CutMix):
        def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
            return {"box": (left, top, right, bottom), "lam_adjusted": mix.label_weights[0].item()}

    normalization = compute_normalization(split.images, "channel")
    plain = batch_of(split, normalization, config, replace(randomness, mix=None))
    mixed = batch_of(split, normalization, config, randomness)
    # torchvision mixes with the previous image, this project with the next one: reversed, they are equal.
    images, labels = FixedCutMix(num_classes=10)(plain.images.flip(0), plain.labels.flip(0))
    assert torch.equal(mixed.images, images.flip(0))
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    assert mixed.label_weight is not None
    assert mixed.partner_labels is not None
    share = mixed.label_weight
    weights = share * one_hot(mixed.labels, 10) + (1 - share) * one_hot(mixed.partner_labels, 10)
    torch.testing.assert_close(weights, labels.flip(0))


def test_rectangles_are_distributed_as_in_torchvision() -> None:
    steps = 20_000
    randomness = sample_randomness(
        config_of(cutmix=1.0), images=10, size=(32, 32), steps=steps, seed=0, epoch=0, device=CPU
    )
    assert randomness.mix is not None
    boxes = randomness.mix.boxes.numpy()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    np.testing.assert_allclose(randomness.mix.label_weights.numpy(), 1 - area / 1024, atol=1e-6)
    torch.manual_seed(0)
    reference = v2.CutMix(alpha=1.0, num_classes=10)
    image = torch.zeros(1, 3, 32, 32)
    found = [reference.make_params([image]) for _ in range(5000)]
    shares = np.array([params["lam_adjusted"] for params in found])
    # The standard error of a mean of 5,000 with deviation 0.29 is 0.004.
    assert randomness.mix.label_weights.mean().item() == pytest.approx(shares.mean(), abs=0.016)
    assert randomness.mix.label_weights.std().item() == pytest.approx(shares.std(), abs=0.016)
    centers = np.array([params["box"] for params in found]).mean(axis=0)[[1, 0, 3, 2]]
    np.testing.assert_allclose(boxes.mean(axis=0), centers, atol=0.7)


def test_mixup_and_cutmix_together_alternate_at_random() -> None:
    config = config_of(cutmix=1.0, mixup=0.4)
    randomness = sample_randomness(config, images=10, size=(32, 32), steps=4000, seed=0, epoch=0, device=CPU)
    mix = randomness.mix
    assert mix is not None
    has_box = (mix.boxes[:, 2:] > mix.boxes[:, :2]).all(dim=1)
    assert not (has_box & (mix.pixel_weights < 1)).any()
    assert torch.equal(mix.label_weights[mix.pixel_weights < 1], mix.pixel_weights[mix.pixel_weights < 1])
    # Within 4 standard deviations of probability 1/2. CutMix with an empty rectangle leaves a batch unmixed.
    assert (mix.pixel_weights < 1).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_mix_parameters_of_a_step_do_not_depend_on_the_number_of_steps() -> None:
    config = config_of(cutmix=1.0, mixup=0.4)
    long, short = (
        sample_randomness(config, images=10, size=(32, 32), steps=steps, seed=0, epoch=0, device=CPU).mix
        for steps in (9, 4)
    )
    assert long is not None
    assert short is not None
    for whole, part in zip(long, short, strict=True):
        assert torch.equal(whole[:4], part)


@pytest.mark.parametrize("mix", [{}, {"mixup": 0.3}, {"cutmix": 1.0}], ids=str)
def test_the_shares_of_all_workers_form_the_batch_of_one_worker(split: Split, mix: dict[str, float]) -> None:
    config = config_of(cutout={"length": 8}, **mix)
    dataset = DeviceTrainingSet(split, compute_normalization(split.images, "channel"), config, device=CPU)
    randomness = randomness_of(config)
    position = position_of(1, slice(128, 192))
    whole = dataset.batch(randomness, position, slice(0, 64))
    parts = [
        dataset.batch(randomness, position, part) for part in (slice(0, 22), slice(22, 43), slice(43, 64))
    ]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    if whole.partner_labels is not None:
        others = [part.partner_labels for part in parts if part.partner_labels is not None]
        assert torch.equal(whole.partner_labels, torch.cat(others))


def test_evaluation_yields_each_image_of_its_rows_once(split: Split) -> None:
    dataset = DeviceEvaluationSet(split, compute_normalization(split.images, "channel"), device=CPU)
    sizes = [len(labels) for _, labels in dataset.batches(slice(3, 250), 100)]
    assert sizes == [100, 100, 47]


def test_read_only_images_are_accepted(split: Split) -> None:
    images = split.images.copy()
    images.setflags(write=False)
    dataset = DeviceEvaluationSet(
        Split(images, split.labels), compute_normalization(images, "channel"), device=CPU
    )
    assert len(dataset) == COUNT


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"crop_padding": 0}])
def test_device_bytes_per_image_match_the_allocation(split: Split, changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    dataset = DeviceTrainingSet(split, compute_normalization(split.images, "channel"), config, device=CPU)
    assert dataset._crops.untyped_storage().nbytes() == COUNT * device_bytes_per_image(config, (3, 32, 32))
