"""The input pipeline for image files: crops, order, colors, workers, errors."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from platform.common.errors import UsageError, UserError
from platform.common.schema import validate
from platform.data.dataset import DatasetInfo
from platform.data.image_folders import ImageFolderSplit
from platform.data.images.cropping import resize_and_center_crop, resize_and_crop, resized_shape
from platform.data.normalization import Normalization
from platform.data.training_data import TrainingData
from platform.space.space_files import load_run
from platform.training.config import AugmentConfig, RunConfig
from platform.training.distributed import World, single
from platform.training.inputs import image_files
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import (
    CropRequest,
    FileEvaluationSet,
    FileTrainingSet,
    random_crop,
    sample_file_randomness,
)
from tests.training.inputs.examples import position_of

SIZE = 28
AUGMENT = AugmentConfig(crop_padding=0, shorter_side=(32, 60), color=0.1)
BUDGET = Budget(images=10, batch_size=4, steps_per_epoch=3, total_steps=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    files = []
    for index in range(10):
        shape = (int(draws.integers(40, 90)), int(draws.integers(40, 90)), 3)
        files.append(str(folder / f"{index}.png"))
        Image.fromarray(draws.integers(0, 256, shape).astype(np.uint8)).save(files[-1])
    return TrainingData(
        train=ImageFolderSplit(np.array(files), np.arange(10)),
        validation=None,
        normalization=Normalization(
            draws.random((3, SIZE, SIZE), dtype=np.float32), np.array([0.2, 0.3, 0.4], np.float32)
        ),
        color_axes=np.array([[0.1, 0.1, 0.1], [0.02, -0.02, 0.0], [0.0, 0.001, -0.001]], np.float32),
        info=DatasetInfo(
            name="image_folder",
            label="image_folder:test",
            sha256="0" * 64,
            class_names=tuple("abcdefghij"),
            train_images=10,
            test_images=0,
            image_shape=(3, SIZE, SIZE),
            path=Path("/nowhere"),
        ),
    )


def batches(
    data: TrainingData,
    *,
    world: World | None = None,
    augment: AugmentConfig = AUGMENT,
    num_loaders: int = 0,
):
    world = world or single("cpu")
    with patch.object(image_files, "default_num_loaders", lambda _: num_loaders):
        dataset = FileTrainingSet(data, augment, budget=BUDGET, world=world)
    randomness = dataset.sample_randomness(1, seed=3, steps=3)
    rows = [BUDGET.batch(step) for step in range(3)]
    return [
        dataset.batch(randomness, position_of(step, part), world.slice_of(part.stop - part.start))
        for step, part in enumerate(rows)
    ]


def test_an_epoch_contains_each_image_once(data: TrainingData) -> None:
    found = batches(data)
    assert [tuple(batch.images.shape) for batch in found] == [(4, 3, 28, 28)] * 2 + [(2, 3, 28, 28)]
    assert sorted(torch.cat([batch.labels for batch in found]).tolist()) == list(range(10))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in found)
    assert all(batch.label_weight is None for batch in found)


def test_batches_do_not_depend_on_loader_processes(data: TrainingData) -> None:
    for one, other in zip(batches(data), batches(data, num_loaders=2), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_two_workers_load_the_batches_of_one(data: TrainingData) -> None:
    worlds = [World(rank=rank, size=2, device=torch.device("cpu")) for rank in range(2)]
    halves = [batches(data, world=world) for world in worlds]
    for whole, first, second in zip(batches(data), *halves, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        assert torch.equal(whole.labels, torch.cat([first.labels, second.labels]))


def test_an_epoch_can_start_at_any_step(data: TrainingData) -> None:
    dataset = FileTrainingSet(data, AUGMENT, budget=BUDGET, world=single("cpu"))
    rows = BUDGET.batch(1)
    later = dataset.batch(
        dataset.sample_randomness(1, seed=3, steps=3),
        position_of(1, rows),
        slice(0, 4),
    )
    assert torch.equal(later.images, batches(data)[1].images)


def test_randomness_depends_only_on_seed_and_epoch_and_covers_its_ranges() -> None:
    def sample(seed: int = 0, epoch: int = 0, **changes: object):
        return sample_file_randomness(
            AUGMENT.model_copy(update=changes), images=20_000, seed=seed, epoch=epoch
        )

    first = sample()
    assert np.array_equal(first.crop_position, sample().crop_position)
    for other in (sample(seed=1), sample(epoch=1)):
        assert not np.array_equal(first.order, other.order)
        assert not np.array_equal(first.crop_position, other.crop_position)
    assert (first.shorter_side.min(), first.shorter_side.max()) == (32, 60)
    assert np.bincount(first.shorter_side)[32:].min() > 20_000 / 29 * 0.8
    assert 0.49 < first.flip.mean() < 0.51
    assert first.color_shift.std(axis=0) == pytest.approx(0.1, rel=0.03)
    assert not sample(flip=False).flip.any()
    assert not sample(color=None).color_shift.any()
    # Disabling one part does not change the random numbers of the others.
    assert np.array_equal(sample(flip=False, color=None).crop_position, first.crop_position)


@pytest.mark.parametrize(("y", "x", "flip"), [(0.0, 0.0, False), (1.0, 1.0, True), (0.5, 0.25, False)])
def test_a_random_crop_equals_the_crop_of_the_resized_image(
    data: TrainingData, y: float, x: float, flip: bool
) -> None:
    file = str(data.train.files[0])
    seen = random_crop(CropRequest(file, 40, y, x, flip), size=SIZE)
    image = Image.open(file)
    height, width = resized_shape(image.height, image.width, 40)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    top, left = round(y * (height - SIZE)), round(x * (width - SIZE))
    expected = whole[top : top + SIZE, left : left + SIZE]
    assert np.abs(seen - (expected[:, ::-1] if flip else expected)).max() <= 1


def test_color_shift_is_added_in_units_of_the_pixel_values(data: TrainingData) -> None:
    plain = batches(data, augment=AUGMENT.model_copy(update={"color": None}))
    randomness = sample_file_randomness(AUGMENT, images=10, seed=3, epoch=1)
    expected = randomness.color_shift @ data.color_axes / data.normalization.std
    for step, (shifted, unshifted) in enumerate(zip(batches(data), plain, strict=True)):
        difference = (shifted.images - unshifted.images).numpy()
        rows = BUDGET.batch(step)
        np.testing.assert_allclose(
            difference, np.broadcast_to(expected[rows][:, :, None, None], difference.shape), atol=1e-5
        )


def test_an_evaluation_yields_center_crops_in_order(data: TrainingData) -> None:
    dataset = FileEvaluationSet(data.train, data.normalization, size=SIZE, world=single("cpu"))
    found = list(dataset.batches(slice(2, 9), 3))
    assert [labels.tolist() for _, labels in found] == [[2, 3, 4], [5, 6, 7], [8]]
    center = resize_and_center_crop(np.asarray(Image.open(data.train.files[5])), shorter_side=32, size=SIZE)
    pixels = center.transpose(2, 0, 1) / 255
    expected = (pixels - data.normalization.mean) / data.normalization.std[:, None, None]
    np.testing.assert_allclose(found[1][0][0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("num_loaders", [0, 2])
def test_a_damaged_image_raises_an_error_with_its_file_name(
    data: TrainingData, num_loaders: int, tmp_path: Path
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    torn = ImageFolderSplit(np.array([*data.train.files[:9], str(tmp_path / "torn.jpg")]), data.train.labels)
    broken = TrainingData(**{**vars(data), "train": torn})
    with pytest.raises(UserError) as caught:
        batches(broken, num_loaders=num_loaders)
    assert "torn.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"crop_padding": 0}}, "requires augment.shorter_side"),
        (
            {"augment": {"crop_padding": 0, "shorter_side": [200, 300]}},
            "at least the crop size of 224 pixels",
        ),
        ({"augment": {"crop_padding": 0, "shorter_side": [300, 256]}}, "ascending"),
        (
            {"augment": {"crop_padding": 4, "shorter_side": [256, 480]}},
            "does not support crop_padding, cutout, mixup or cutmix",
        ),
        (
            {"data": {"name": "cifar10"}, "augment": {"color": 0.1}},
            "require data.name: image_folder; got cifar10",
        ),
        ({"data": {"image_size": 64}}, "require data.name: image_folder"),
    ],
)
def test_settings_that_do_not_fit_the_kind_of_data_are_rejected(changes: dict, message: str) -> None:
    settings = {
        "model": {"name": "resnet34"},
        "data": {"name": "image_folder"},
        "epochs": 1,
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
    }
    with pytest.raises(UsageError, match=message):
        validate(RunConfig, settings | changes, source="space.yaml")


def test_a_cifar_configuration_omits_the_settings_for_image_files() -> None:
    written = load_run("resnet18_cutout").model_dump_json()
    assert not {"shorter_side", "color", "image_size"} & set(written.replace('"', " ").split())


def test_the_imagenet_recipe_augments_like_alexnet_and_he_2016() -> None:
    config = load_run("resnet34_imagenet")
    assert (config.model.name, config.data.name, config.data.normalization) == (
        "resnet34",
        "image_folder",
        "pixel",
    )
    assert (config.augment.shorter_side, config.augment.flip, config.augment.color) == (
        (256, 480),
        True,
        0.1,
    )


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (2, 30_001)])
def test_crops_of_extreme_proportions_need_little_memory(shape: tuple[int, int]) -> None:
    """The whole resized image would need up to 11 GB."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert resize_and_center_crop(image, shorter_side=256, size=224).shape == (224, 224, 3)
    height, width = resized_shape(*shape, 256)
    corner = resize_and_crop(image, shorter_side=256, size=224, top=height - 224, left=width - 224)
    np.testing.assert_allclose(corner[-1, -1].astype(int), image[-1, -1], atol=1)
