"""Lower precisions: what ships is judged on validation, told on test, and described in model.json."""

from dataclasses import replace

import numpy as np
import pytest

from deploy import champion
from deploy.champion import export_champion, precisions_here
from deploy.conversion.ncnn_net import load_net, run
from deploy.export import parse_precisions
from deploy.model_files.model_folder import open_model_folder
from deploy.model_files.precision_folders import drop_siblings, folder_of, sibling, siblings
from deploy.quantization.accuracy import Accuracy, count_in_python
from deploy.quantization.evaluation_images import Pictures, divide, find_pictures
from deploy.quantization.precisions import Judge, PrecisionRefused, candidate, export_precisions, ship
from platform.data import cache, catalog
from platform.data.cache import load_split
from platform.data.config import DataConfig
from platform.data.dataset import Split
from platform.errors import UsageError, UserError


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return catalog.prepare(DataConfig(name="generated"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pictures(model, info) -> Pictures:
    """A few of each part: most tests here are about verdicts, not about figures."""
    whole = divide(model, info)
    few = np.arange(32)
    return replace(whole, validation=whole.validation.take(few), test=whole.test.take(few))


def counted(**top1: float):
    """A count that finds, by `PRECISION_PART`, the top-1 accuracy given; validation has 32 images."""

    def count(folder, split):
        document = open_model_folder(folder).document
        part = "test" if split.labels is counted.test else "validation"
        share = top1.get(f"{document.precision}_{part}", 0.9)
        return Accuracy(images=1000, correct=round(1000 * share), computed_by="ncnn in Python")

    return count


@pytest.fixture
def judge(export, pictures):
    counted.test = pictures.test.labels
    return lambda accept_loss=False, **top1: Judge(
        export.folder, pictures, counted(**top1), accept_loss=accept_loss
    )


def test_the_parts_of_the_data_have_no_image_in_common(model, info):
    parts = divide(model, info)
    train = load_split(info, "train").images

    def keys(images):
        return {image.tobytes() for image in images}

    calibration, validation = keys(parts.calibration), keys(parts.validation.images)
    # 5,000 validation images: 512 calibrate, the others judge.
    assert (len(parts.calibration), len(parts.validation)) == (512, 4488)
    assert not calibration & validation
    assert calibration | validation <= keys(train)
    assert not (calibration | validation) & keys(parts.test.images)
    assert not parts.held_out


def test_a_small_validation_part_judges_whole_and_training_images_help_to_calibrate(model, info):
    config = '{"data": {"validation_size": 200, "split_seed": 3}}'
    remembered = replace(model, provenance={"config": config}, metrics={"validation_accuracy": 0.5})
    parts = divide(remembered, info)
    assert (len(parts.calibration), len(parts.validation)) == (512, 200)
    assert parts.held_out


def test_without_the_data_there_are_no_pictures(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "default_cache_dir", lambda: tmp_path)
    assert find_pictures(model, None) is None


def test_what_ships_says_how_good_it_is(judge, tmp_path):
    marks = judge(bf16_validation=0.895, bf16_test=0.893)
    (folder,) = export_precisions(marks.source, tmp_path / "export", ["bf16"], judge=marks)
    assert folder == tmp_path / "export-bf16"
    document = open_model_folder(folder).document
    assert document.source.test_accuracy == 0.893
    assert document.model_dump()["accuracy"] == {
        "data": "generated",
        "computed_by": "ncnn in Python",
        "largest_loss": 0.01,
        "validation": {"images": 1000, "top1": 0.895, "fp32_top1": 0.9, "held_out": False},
        "test": {"images": 1000, "top1": 0.893, "fp32_top1": 0.9},
    }


@pytest.mark.parametrize("part", ["validation", "test"])
def test_what_costs_more_than_a_point_is_refused(judge, tmp_path, part):
    marks = judge(**{f"bf16_{part}": 0.889})
    (refusal,) = export_precisions(marks.source, tmp_path / "export", ["bf16"], judge=marks)
    assert isinstance(refusal, PrecisionRefused)
    assert f"bf16 costs 1.10 points of top-1 accuracy on 1,000 {part} images (88.90%" in str(refusal)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_can_be_accepted(judge, tmp_path):
    marks = judge(accept_loss=True, bf16_validation=0.5)
    (folder,) = export_precisions(marks.source, tmp_path / "export", ["bf16"], judge=marks)
    accuracy = open_model_folder(folder).document.model_dump()["accuracy"]
    assert (accuracy["largest_loss"], accuracy["validation"]["top1"]) == (None, 0.5)


def test_the_test_images_do_not_choose(export, pictures, tmp_path):
    opened = []

    def count(folder, split):
        opened.append(split is pictures.test)
        return Accuracy(images=10, correct=9, computed_by="ncnn in Python")

    marks = Judge(export.folder, pictures, count)
    with candidate(export.folder, "bf16", judge=marks) as found:
        assert not any(opened)
        ship(found, tmp_path / "out", judge=marks)
    assert any(opened)


def test_int8_needs_images_to_be_judged_on(export, tmp_path):
    with pytest.raises(UserError, match=r"int8 is calibrated and judged on images of the data .* --data-dir"):
        list(export_precisions(export.folder, tmp_path / "export", ["int8"], judge=None))
    (folder,) = export_precisions(export.folder, tmp_path / "export", ["fp16"], judge=None)
    assert "accuracy" not in open_model_folder(folder).document.model_dump()


def test_right_answers_are_counted(export, pictures):
    # The network is random: against its own answers it is always right, against the next class never.
    folder = open_model_folder(export.folder)
    logits = run(load_net(folder.param, folder.weights), folder.document.normalize(pictures.test.images))
    labels = logits.argmax(1).astype(np.int64)
    labels[:8] = (labels[:8] + 1) % 10
    found = count_in_python(export.folder, Split(pictures.test.images, labels))
    assert (found.images, found.correct, found.top1) == (32, 24, 0.75)


def test_precisions_are_named_in_one_word():
    assert parse_precisions("int8,fp32,int8") == ["int8", "fp32"]
    with pytest.raises(UsageError, match=r"got 'bf61' \(did you mean 'bf16'"):
        parse_precisions("fp32,bf61")


@pytest.fixture
def few_pictures(pictures, monkeypatch):
    monkeypatch.setattr(champion, "divide", lambda *_, **__: pictures)
    counted.test = pictures.test.labels


def test_the_champion_ships_in_fp32_and_its_fastest_allowed_precision(
    model_path, info, few_pictures, tmp_path, monkeypatch
):
    speeds = {"fp32": 3.0, "bf16": 2.0, "fp16": 1.0}
    # What a sweep leaves that was killed here and had chosen otherwise.
    (tmp_path / "export-int8").mkdir()
    (tmp_path / "export-int8" / "model.json").write_text("{}")
    monkeypatch.setattr(champion, "_cpu_ms", lambda folders: {name: speeds[name] for name in folders})
    refused = export_champion(
        model_path,
        tmp_path / "export",
        info=info,
        precisions=("bf16", "fp16"),
        count=counted(fp16_validation=0.8),
    )
    assert (refused.precision, refused.best) == ("bf16", tmp_path / "export-bf16")
    assert "fp16 costs 10.00 points" in refused.refused["fp16"]
    assert refused.cpu_ms == {"fp32": 3.0, "bf16": 2.0}
    assert open_model_folder(refused.best).document.precision == "bf16"
    assert refused.fp32.folder == tmp_path / "export"
    document = open_model_folder(tmp_path / "export").document
    assert (document.precision, (document.tuning or {})["method"]) == ("fp32", "measured")
    told = document.model_dump()
    assert told["precisions"]["best"] == "bf16"
    assert set(told["precisions"]["refused"]) == {"fp16"}
    assert told["accuracy"]["test"]["top1"] == 0.9
    assert {path.name for path in tmp_path.iterdir()} == {"export", "export-bf16"}
    # An export that chose otherwise, cut off or of an older model, leaves nothing behind.
    assert siblings(tmp_path / "export") == {"bf16": tmp_path / "export-bf16"}
    assert sibling(tmp_path / "export-bf16", "fp32") == tmp_path / "export"
    with pytest.raises(UserError, match=r"no export in int8 beside .*--precision int8"):
        sibling(tmp_path / "export", "int8")
    (tmp_path / "export-int8").mkdir()
    (tmp_path / "export-int8" / "model.json").write_text("{}")
    left_out: list[str] = []
    assert set(siblings(tmp_path / "export", warn=left_out.append)) == {"bf16"}
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path / 'export-int8'} is left out: ")
    assert drop_siblings(tmp_path / "export", keep=siblings(tmp_path / "export").values()) == [
        tmp_path / "export-int8"
    ]
    (tmp_path / "export-bf16" / "notes.txt").write_text("mine")
    assert drop_siblings(tmp_path / "export") == []
    (tmp_path / "export-bf16" / "notes.txt").unlink()
    assert drop_siblings(tmp_path / "export", keep=[tmp_path / "export-bf16"]) == []
    assert drop_siblings(tmp_path / "export") == [tmp_path / "export-bf16"]


def test_the_test_images_can_withdraw_the_champions_precision(
    model_path, info, few_pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(champion, "_cpu_ms", lambda _: {"fp32": 3.0, "bf16": 2.0})
    result = export_champion(
        model_path,
        tmp_path / "export",
        info=info,
        precisions=("bf16",),
        tuned=False,
        count=counted(bf16_test=0.8),
    )
    assert (result.precision, result.best) == ("fp32", tmp_path / "export")
    assert "test images" in result.refused["bf16"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_precision_that_cannot_be_had_does_not_stop_the_champion(
    model_path, info, few_pictures, pictures, tmp_path, monkeypatch
):
    few = replace(pictures, calibration=pictures.calibration[:320])
    monkeypatch.setattr(champion, "divide", lambda *_, **__: few)
    result = export_champion(
        model_path, tmp_path / "export", info=info, precisions=("int8",), tuned=False, count=counted()
    )
    assert result.precision == "fp32"
    assert result.refused == {
        "int8": "int8 was not exported: int8 needs at least 512 calibration images, got 320"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_speed_is_measured_per_precision(export):
    times = champion._cpu_ms({"a": export.folder, "b": export.folder})
    assert set(times) == {"a", "b"}
    assert all(0 < time < 1000 for time in times.values())


def test_only_precisions_this_processor_is_fast_in_are_tried():
    assert "int8" in precisions_here()
    assert "fp16" not in precisions_here()


def test_folders_stand_side_by_side(tmp_path):
    assert folder_of(tmp_path / "export", "fp32") == tmp_path / "export"
    assert folder_of(tmp_path / "export", "int8") == tmp_path / "export-int8"
