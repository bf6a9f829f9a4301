"""The pipeline for larger pictures: views, order, colors, workers, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from platform.data.dataset import DatasetInfo
from platform.data.image_folders import PictureData, PictureSplit
from platform.data.images.framing import center_view, resized_shape
from platform.data.normalization import Normalization
from platform.errors import UsageError, UserError
from platform.schema import validate
from platform.space.space_files import load_run
from platform.training.config import AugmentConfig, RunConfig
from platform.training.distributed import World, single
from platform.training.inputs.augment import Place
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import (
    PictureEvaluationTable,
    PictureTable,
    View,
    _Views,
    draw_pictures,
)

SIZE = 28
AUGMENT = AugmentConfig(crop_padding=0, shorter_side=(32, 60), color=0.1)
BUDGET = Budget(images=10, batch_size=4, steps_per_epoch=3, total_steps=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PictureData:
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    files = []
    for index in range(10):
        shape = (int(draws.integers(40, 90)), int(draws.integers(40, 90)), 3)
        files.append(str(folder / f"{index}.png"))
        Image.fromarray(draws.integers(0, 256, shape).astype(np.uint8)).save(files[-1])
    return PictureData(
        train=PictureSplit(np.array(files), np.arange(10)),
        validation=None,
        normalization=Normalization(
            draws.random((3, SIZE, SIZE), dtype=np.float32), np.array([0.2, 0.3, 0.4], np.float32)
        ),
        color_axes=np.array([[0.1, 0.1, 0.1], [0.02, -0.02, 0.0], [0.0, 0.001, -0.001]], np.float32),
        info=DatasetInfo(
            name="pictures",
            label="pictures:test",
            sha256="0" * 64,
            class_names=tuple("abcdefghij"),
            train_images=10,
            test_images=0,
            image_shape=(3, SIZE, SIZE),
            path=Path("/nowhere"),
        ),
    )


def batches(
    data: PictureData, *, world: World | None = None, augment: AugmentConfig = AUGMENT, loaders: int = 0
):
    world = world or single("cpu")
    table = PictureTable(data, augment, seed=3, budget=BUDGET, world=world, loaders=loaders)
    draw = table.draw(1)
    found = []
    for step in range(3):
        rows = BUDGET.batch(step)
        found.append(
            table.batch(draw, Place.of(step, rows, world.device), world.slice_of(rows.stop - rows.start))
        )
    return found


def test_an_epoch_passes_over_every_picture_once(data: PictureData) -> None:
    found = batches(data)
    assert [tuple(batch.images.shape) for batch in found] == [(4, 3, 28, 28)] * 2 + [(2, 3, 28, 28)]
    assert sorted(torch.cat([batch.labels for batch in found]).tolist()) == list(range(10))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in found)
    assert all(batch.share is None for batch in found)


def test_loader_processes_change_nothing(data: PictureData) -> None:
    for mine, theirs in zip(batches(data), batches(data, loaders=2), strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)


def test_two_workers_see_the_pictures_of_one(data: PictureData) -> None:
    worlds = [World(rank=rank, size=2, device=torch.device("cpu")) for rank in range(2)]
    halves = [batches(data, world=world) for world in worlds]
    for whole, first, second in zip(batches(data), *halves, strict=True):
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        assert torch.equal(whole.labels, torch.cat([first.labels, second.labels]))


def test_an_epoch_can_begin_at_any_step(data: PictureData) -> None:
    table = PictureTable(data, AUGMENT, seed=3, budget=BUDGET, world=single("cpu"), loaders=0)
    rows = BUDGET.batch(1)
    later = table.batch(table.draw(1), Place.of(1, rows, torch.device("cpu")), slice(0, 4))
    assert torch.equal(later.images, batches(data)[1].images)


def test_the_draw_depends_on_seed_and_epoch_alone_and_fills_its_ranges() -> None:
    def draw(seed: int = 0, epoch: int = 0, **changes: object):
        return draw_pictures(AUGMENT.model_copy(update=changes), pictures=20_000, seed=seed, epoch=epoch)

    first = draw()
    assert np.array_equal(first.place, draw().place)
    for other in (draw(seed=1), draw(epoch=1)):
        assert not np.array_equal(first.order, other.order)
        assert not np.array_equal(first.place, other.place)
    assert (first.shorter_side.min(), first.shorter_side.max()) == (32, 60)
    assert np.bincount(first.shorter_side)[32:].min() > 20_000 / 29 * 0.8
    assert 0.49 < first.flip.mean() < 0.51
    assert first.color.std(axis=0) == pytest.approx(0.1, rel=0.03)
    assert not draw(flip=False).flip.any()
    assert not draw(color=None).color.any()
    # What is switched off takes nothing from the others' luck.
    assert np.array_equal(draw(flip=False, color=None).place, first.place)


@pytest.mark.parametrize(("y", "x", "flip"), [(0.0, 0.0, False), (1.0, 1.0, True), (0.5, 0.25, False)])
def test_a_view_is_the_cut_of_the_resized_picture(data: PictureData, y: float, x: float, flip: bool) -> None:
    file = str(data.train.files[0])
    seen = _Views(SIZE)[View(file, 40, y, x, flip)].numpy().transpose(1, 2, 0)
    image = Image.open(file)
    height, width = resized_shape(image.height, image.width, 40)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    top, left = round(y * (height - SIZE)), round(x * (width - SIZE))
    expected = whole[top : top + SIZE, left : left + SIZE]
    assert np.abs(seen - (expected[:, ::-1] if flip else expected)).max() <= 1


def test_colors_are_shifted_before_the_mean_is_subtracted(data: PictureData) -> None:
    plain = batches(data, augment=AUGMENT.model_copy(update={"color": None}))
    draw = draw_pictures(AUGMENT, pictures=10, seed=3, epoch=1)
    expected = draw.color @ data.color_axes / data.normalization.std
    for step, (shifted, still) in enumerate(zip(batches(data), plain, strict=True)):
        difference = (shifted.images - still.images).numpy()
        rows = BUDGET.batch(step)
        np.testing.assert_allclose(
            difference, np.broadcast_to(expected[rows][:, :, None, None], difference.shape), atol=1e-5
        )


def test_an_evaluation_sees_centers_in_order(data: PictureData) -> None:
    table = PictureEvaluationTable(data.train, data.normalization, size=SIZE, world=single("cpu"), loaders=2)
    found = list(table.batches(slice(2, 9), 3))
    assert [labels.tolist() for _, labels in found] == [[2, 3, 4], [5, 6, 7], [8]]
    center = center_view(np.asarray(Image.open(data.train.files[5])), shorter_side=32, size=SIZE)
    pixels = center.transpose(2, 0, 1) / 255
    expected = (pixels - data.normalization.mean) / data.normalization.std[:, None, None]
    np.testing.assert_allclose(found[1][0][0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_damaged_picture_ends_the_run_with_its_name(
    data: PictureData, loaders: int, tmp_path: Path
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    torn = PictureSplit(np.array([*data.train.files[:9], str(tmp_path / "torn.jpg")]), data.train.labels)
    broken = PictureData(**{**vars(data), "train": torn})
    with pytest.raises(UserError) as caught:
        batches(broken, loaders=loaders)
    assert "torn.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"crop_padding": 0}}, "needs augment.shorter_side"),
        ({"augment": {"crop_padding": 0, "shorter_side": [200, 300]}}, "at least the 224 pixels"),
        ({"augment": {"crop_padding": 0, "shorter_side": [300, 256]}}, "ascending"),
        (
            {"augment": {"crop_padding": 4, "shorter_side": [256, 480]}},
            "no crop_padding, cutout, mixup or cutmix",
        ),
        (
            {"data": {"name": "cifar10"}, "augment": {"color": 0.1}},
            "are for data.name: pictures; it is cifar10",
        ),
        ({"data": {"picture_size": 64}}, "are for data.name: pictures"),
    ],
)
def test_a_configuration_that_does_not_fit_pictures_is_refused(changes: dict, message: str) -> None:
    settings = {
        "model": {"name": "resnet34"},
        "data": {"name": "pictures"},
        "epochs": 1,
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
    }
    with pytest.raises(UsageError, match=message):
        validate(RunConfig, settings | changes, source="space.yaml")


def test_a_run_on_tables_reads_as_it_did_before_there_were_pictures() -> None:
    written = load_run("resnet18_cutout").model_dump_json()
    assert not {"shorter_side", "color", "picture_size"} & set(written.replace('"', " ").split())


def test_the_recipe_is_alexnets_and_hes() -> None:
    config = load_run("resnet34_imagenet")
    assert (config.model.name, config.data.name, config.data.normalization) == (
        "resnet34",
        "pictures",
        "pixel",
    )
    assert (config.augment.shorter_side, config.augment.flip, config.augment.color) == (
        (256, 480),
        True,
        0.1,
    )
