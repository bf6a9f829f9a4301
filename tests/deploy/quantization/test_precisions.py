"""Export in lower precisions: chosen on validation images, reported and rejected on test images."""

from dataclasses import replace

import numpy as np
import pytest

from deploy import champion
from deploy.champion import export_champion, native_precisions
from deploy.conversion.ncnn_net import load_net, run
from deploy.export import parse_precisions
from deploy.model_files.model_folder import ModelFolder, open_model_folder
from deploy.model_files.precision_folders import (
    find_lower_precisions,
    find_precision_folder,
    precision_folder,
    remove_lower_precisions,
)
from deploy.quantization import precisions
from deploy.quantization.accuracy import Accuracy, evaluate
from deploy.quantization.evaluation_images import EvaluationData, split_evaluation_data
from deploy.quantization.precisions import (
    AccuracyGate,
    PrecisionRefused,
    converted_model,
    export_precisions,
    publish,
)
from platform.common.errors import UsageError, UserError
from platform.data import catalog
from platform.data.cache import load_split
from platform.data.config import DataConfig
from platform.data.dataset import Split


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    return catalog.prepare_dataset(DataConfig(name="generated"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(model, info) -> EvaluationData:
    """A few images of each part, for tests that replace the evaluator."""
    whole = split_evaluation_data(model, info)
    few = np.arange(32)
    return replace(whole, validation=whole.validation.take(few), test=whole.test.take(few))


def evaluator_with(**top1: float):
    """Return an evaluator with the given top-1 accuracies by `PRECISION_PART`, 0.9 by default."""

    def evaluate(folder, split):
        document = open_model_folder(folder).document
        part = "test" if split.labels is evaluator_with.test_labels else "validation"
        share = top1.get(f"{document.precision}_{part}", 0.9)
        return Accuracy(images=1000, correct=round(1000 * share), computed_by="ncnn in Python")

    return evaluate


@pytest.fixture
def make_gate(export, data):
    evaluator_with.test_labels = data.test.labels
    return lambda accept_loss=False, **top1: AccuracyGate(
        export.path, data, evaluator_with(**top1), accept_loss=accept_loss
    )


def test_parts_of_the_data_are_disjoint(model, info):
    parts = split_evaluation_data(model, info)
    train = load_split(info, "train").images

    def keys(images):
        return {image.tobytes() for image in images}

    calibration, validation = keys(parts.calibration), keys(parts.validation.images)
    # 5,000 validation images: 512 for calibration, the others to choose a precision.
    assert (len(parts.calibration), len(parts.validation)) == (512, 4488)
    assert not calibration & validation
    assert calibration | validation <= keys(train)
    assert not (calibration | validation) & keys(parts.test.images)
    assert not parts.held_out


def test_small_validation_part_is_used_completely_and_calibration_adds_training_images(model, info):
    config = '{"data": {"validation_size": 200, "split_seed": 3}}'
    remembered = replace(model, provenance={"config": config}, metrics={"validation_accuracy": 0.5})
    parts = split_evaluation_data(remembered, info)
    assert (len(parts.calibration), len(parts.validation)) == (512, 200)
    assert parts.held_out


def test_onednn_is_dropped_if_only_ncnn_keeps_the_accuracy(make_gate, export, monkeypatch):
    def convert(source, out_dir, *, try_onednn, **_settings):
        document = open_model_folder(source).document
        tuning = {"kernels": "onednn"} if try_onednn else {}
        document = document.model_copy(update={"tuning": tuning, "precision": "int8"})
        return ModelFolder(out_dir, document)

    tried = []
    gate = make_gate()

    def evaluate(folder, split):
        tried.append(folder)
        return Accuracy(images=1000, correct=(900, 850, 895)[len(tried) - 1], computed_by="the C++ engine")

    gate.evaluate = evaluate
    assert gate.validation.top1 == 0.9
    monkeypatch.setattr(precisions, "convert_precision", convert)
    with converted_model(export.path, "int8", gate=gate, tune=True) as found:
        assert found.model.document.tuning == {}
        assert found.validation is not None
        assert found.validation.top1 == 0.895
    assert len(tried) == 3


@pytest.mark.parametrize(("ratio", "offered"), [(0.8, True), (1.2, False)])
def test_tuned_bf16_is_offered_only_if_it_is_faster_than_fp32(
    make_gate, tmp_path, monkeypatch, ratio, offered
):
    monkeypatch.setattr(precisions, "time_ratio", lambda *_: ratio)
    monkeypatch.setattr("deploy.winograd.measured_choice.group_layers_by_shape", lambda *_: [])
    gate = make_gate()
    (outcome,) = export_precisions(gate.source, tmp_path / "export", ["bf16"], gate=gate, tune=True)
    assert (tmp_path / "export-bf16").is_dir() == offered
    if not offered:
        assert isinstance(outcome, PrecisionRefused)
        assert "bf16 takes 1.20 times the processor time of fp32" in str(outcome)


def test_exported_precision_records_its_accuracy(make_gate, tmp_path):
    gate = make_gate(bf16_validation=0.895, bf16_test=0.893)
    (folder,) = export_precisions(gate.source, tmp_path / "export", ["bf16"], gate=gate)
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
def test_loss_of_more_than_one_point_is_refused(make_gate, tmp_path, part):
    gate = make_gate(**{f"bf16_{part}": 0.889})
    (refusal,) = export_precisions(gate.source, tmp_path / "export", ["bf16"], gate=gate)
    assert isinstance(refusal, PrecisionRefused)
    assert f"bf16 costs 1.10 points of top-1 accuracy on 1,000 {part} images (88.90 %" in str(refusal)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_can_be_accepted(make_gate, tmp_path):
    gate = make_gate(accept_loss=True, bf16_validation=0.5)
    (folder,) = export_precisions(gate.source, tmp_path / "export", ["bf16"], gate=gate)
    accuracy = open_model_folder(folder).document.model_dump()["accuracy"]
    assert (accuracy["largest_loss"], accuracy["validation"]["top1"]) == (None, 0.5)


def test_choice_does_not_evaluate_test_images(export, data, tmp_path):
    opened = []

    def evaluate(folder, split):
        opened.append(split is data.test)
        return Accuracy(images=10, correct=9, computed_by="ncnn in Python")

    gate = AccuracyGate(export.path, data, evaluate)
    with converted_model(export.path, "bf16", gate=gate) as found:
        assert not any(opened)
        publish(found, tmp_path / "out", gate=gate)
    assert any(opened)


def test_int8_requires_evaluation_images(export, tmp_path):
    with pytest.raises(
        UserError, match=r"int8 is calibrated and checked on images of the model's training data.* --data-dir"
    ):
        list(export_precisions(export.path, tmp_path / "export", ["int8"], gate=None))
    (folder,) = export_precisions(export.path, tmp_path / "export", ["fp16"], gate=None)
    assert "accuracy" not in open_model_folder(folder).document.model_dump()


@pytest.mark.parametrize("computed_by", ["the C++ engine", "ncnn in Python"])
def test_top1_accuracy_is_measured(export, data, computed_by):
    # Labels are the network's own predictions, 8 of 32 shifted to the next class.
    folder = open_model_folder(export.path)
    logits = run(load_net(folder.param, folder.weights), folder.document.normalize(data.test.images))
    labels = logits.argmax(1).astype(np.int64)
    labels[:8] = (labels[:8] + 1) % 10
    found = evaluate(export.path, Split(data.test.images, labels), computed_by=computed_by)
    assert (found.images, found.correct, found.top1, found.computed_by) == (32, 24, 0.75, computed_by)


def test_list_of_precisions_is_parsed():
    assert parse_precisions("int8,fp32,int8") == ["int8", "fp32"]
    with pytest.raises(UsageError, match=r"got 'bf61' \(did you mean 'bf16'"):
        parse_precisions("fp32,bf61")


@pytest.fixture
def few_images(data, monkeypatch):
    monkeypatch.setattr(champion, "split_evaluation_data", lambda *_, **__: data)
    evaluator_with.test_labels = data.test.labels


def test_champion_is_exported_in_fp32_and_the_fastest_accepted_precision(
    model_path, info, few_images, tmp_path, monkeypatch
):
    speeds = {"fp32": 3.0, "bf16": 2.0, "fp16": 1.0}
    # Leftover of a killed export with another choice.
    (tmp_path / "export-int8").mkdir()
    (tmp_path / "export-int8" / "model.json").write_text("{}")
    monkeypatch.setattr(champion, "_cpu_ms", lambda folders: {name: speeds[name] for name in folders})
    refused = export_champion(
        model_path,
        tmp_path / "export",
        info=info,
        precisions=("bf16", "fp16"),
        evaluator=evaluator_with(fp16_validation=0.8),
    )
    assert "fp16 costs 10.00 points" in refused["fp16"]
    assert open_model_folder(tmp_path / "export-bf16").document.precision == "bf16"
    document = open_model_folder(tmp_path / "export").document
    assert (document.precision, (document.tuning or {})["method"]) == ("fp32", "measured")
    values = document.model_dump()
    assert values["precisions"] == {"best": "bf16", "cpu_ms": {"fp32": 3.0, "bf16": 2.0}, "refused": refused}
    assert values["accuracy"]["test"]["top1"] == 0.9
    assert {path.name for path in tmp_path.iterdir()} == {"export", "export-bf16"}
    # Folders of earlier exports with other precisions or networks are found and removed.
    assert find_lower_precisions(tmp_path / "export") == {"bf16": tmp_path / "export-bf16"}
    assert find_precision_folder(tmp_path / "export-bf16", "fp32") == tmp_path / "export"
    with pytest.raises(UserError, match=r"no export in int8 next to .*--precision int8"):
        find_precision_folder(tmp_path / "export", "int8")
    (tmp_path / "export-int8").mkdir()
    (tmp_path / "export-int8" / "model.json").write_text("{}")
    left_out: list[str] = []
    assert set(find_lower_precisions(tmp_path / "export", warn=left_out.append)) == {"bf16"}
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{tmp_path / 'export-int8'} is left out: ")
    assert remove_lower_precisions(
        tmp_path / "export", keep=find_lower_precisions(tmp_path / "export").values()
    ) == [tmp_path / "export-int8"]
    (tmp_path / "export-bf16" / "notes.txt").write_text("mine")
    assert remove_lower_precisions(tmp_path / "export") == []
    (tmp_path / "export-bf16" / "notes.txt").unlink()
    assert remove_lower_precisions(tmp_path / "export", keep=[tmp_path / "export-bf16"]) == []
    assert remove_lower_precisions(tmp_path / "export") == [tmp_path / "export-bf16"]


def test_test_images_can_reject_the_champions_precision(model_path, info, few_images, tmp_path, monkeypatch):
    monkeypatch.setattr(champion, "_cpu_ms", lambda _: {"fp32": 3.0, "bf16": 2.0})
    refused = export_champion(
        model_path,
        tmp_path / "export",
        info=info,
        precisions=("bf16",),
        tuned=False,
        evaluator=evaluator_with(bf16_test=0.8),
    )
    assert "test images" in refused["bf16"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_champion_is_exported_despite_a_failed_precision(
    model_path, info, few_images, data, tmp_path, monkeypatch
):
    few = replace(data, calibration=data.calibration[:320])
    monkeypatch.setattr(champion, "split_evaluation_data", lambda *_, **__: few)
    refused = export_champion(
        model_path,
        tmp_path / "export",
        info=info,
        precisions=("int8",),
        tuned=False,
        evaluator=evaluator_with(),
    )
    assert refused == {"int8": "int8 was not exported: int8 needs at least 512 calibration images, got 320"}
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_speed_is_measured_per_precision(export):
    times = champion._cpu_ms({"a": export.path, "b": export.path})
    assert set(times) == {"a", "b"}
    assert all(0 < time < 1000 for time in times.values())


def test_default_precisions_are_native_to_the_processor():
    assert "int8" in native_precisions()
    assert "fp16" not in native_precisions()


def test_precision_folders_have_the_precision_as_suffix(tmp_path):
    assert precision_folder(tmp_path / "export", "fp32") == tmp_path / "export"
    assert precision_folder(tmp_path / "export", "int8") == tmp_path / "export-int8"
