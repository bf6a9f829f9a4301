"""The choice between ncnn's and oneDNN's kernels: equal logits, a choice by time, and a fallback."""

import numpy as np
import pytest

from deploy.conversion.ncnn_net import BF16, EXACT, load_net, run
from deploy.conversion.parity import compare, random_images
from deploy.engine_build.engine_model import EngineModel, engine_version
from deploy.export import export_model
from deploy.model_files.model_folder import ModelFolder, open_model_folder, self_test_images
from deploy.quantization import activation_scales
from deploy.quantization.convert_precision import convert_precision
from deploy.winograd import kernel_choice
from deploy.winograd.kernel_choice import find_faster_onednn
from deploy.winograd.measured_choice import processor_name
from platform.common.errors import UserError

IMAGES = random_images(16, (3, 32, 32), seed=3)
CALIBRATION = random_images(64, (3, 32, 32), seed=4)


@pytest.fixture(scope="module")
def folder(export) -> ModelFolder:
    return open_model_folder(export.path)


@pytest.fixture
def onednn() -> None:
    if "oneDNN" not in engine_version():
        pytest.skip("the engine was built without oneDNN (Debian and Ubuntu: libdnnl-dev)")


@pytest.fixture
def set_ratio(monkeypatch, onednn):
    """A function that sets the processor time of oneDNN relative to ncnn; Winograd is not searched."""

    def set_ratio(ratio: float) -> None:
        times = np.array([[ratio] * 4, [1.0] * 4])
        monkeypatch.setattr(kernel_choice, "cpu_times_ms", lambda *_args, **_settings: times)
        monkeypatch.setattr("deploy.winograd.measured_choice.group_layers_by_shape", lambda *_: [])

    return set_ratio


def test_engine_library_gives_the_logits_of_ncnn(folder):
    inputs = folder.document.normalize(IMAGES)
    model = EngineModel(folder.path)
    assert model.kernels == "ncnn"
    reference = run(load_net(folder.param, folder.weights), inputs)
    assert compare(reference, model.infer_each(inputs)).max_relative < 1e-5
    assert compare(reference, model.infer(inputs)).max_relative < 1e-5


def test_engine_library_reports_errors(folder, tmp_path):
    with pytest.raises(UserError, match="not a model folder"):
        EngineModel(tmp_path)
    with pytest.raises(UserError, match="not finite"):
        EngineModel(folder.path).infer(np.full((1, 3, 32, 32), np.nan, np.float32))


@pytest.mark.usefixtures("onednn")
def test_onednn_gives_the_logits_of_ncnn(folder):
    # A ResNet-32, with option-A shortcuts.
    inputs = folder.document.normalize(IMAGES)
    model = EngineModel(folder.path, kernels="onednn")
    assert model.kernels == "onednn"
    reference = run(load_net(folder.param, folder.weights), inputs)
    assert compare(reference, model.infer_each(inputs)).max_relative < 1e-5
    assert compare(reference, model.infer(inputs)).max_relative < 1e-5


def test_kernels_are_chosen_by_their_time(folder, set_ratio):
    set_ratio(0.995)
    assert find_faster_onednn(folder.path) is None
    set_ratio(0.5)
    found = find_faster_onednn(folder.path)
    assert found is not None
    assert (found[0].kernels, found[1]) == ("onednn", 0.5)


def test_fp32_export_records_the_kernels(model_path, set_ratio, tmp_path):
    set_ratio(0.5)
    export_model(model_path, tmp_path / "export", parity_images=IMAGES, parity_data="random", tuned=True)
    document = open_model_folder(tmp_path / "export").document
    tuning = document.tuning or {}
    assert (tuning["kernels"], tuning["kernels_time_ratio"]) == ("onednn", 0.5)
    assert (tuning["processor"], tuning["threads"], tuning["method"]) == (processor_name(), 1, "measured")
    assert document.parity.data == "random"
    assert document.parity.max_abs < 1e-4 * document.parity.max_logit
    assert EngineModel(tmp_path / "export").kernels == "onednn"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precision_is_close_to_fp32_with_both_kernels(
    folder, tmp_path, monkeypatch, set_ratio, precision
):
    set_ratio(0.5)
    monkeypatch.setattr(activation_scales, "MIN_IMAGES", len(CALIBRATION))
    result = convert_precision(
        folder.path,
        tmp_path / precision,
        precision=precision,
        images=IMAGES,
        images_label="random",
        calibration=CALIBRATION if precision == "int8" else None,
        tuned=True,
    )
    document = result.document
    assert (document.tuning or {})["kernels"] == "onednn"
    inputs = document.normalize(IMAGES)
    reference = run(load_net(folder.param, folder.weights), inputs)
    model = EngineModel(result.path)
    assert model.kernels == "onednn"
    onednn = compare(reference, model.infer_each(inputs))
    assert onednn.max_abs == pytest.approx(document.parity.max_abs, rel=1e-3)
    converted = open_model_folder(result.path)
    options = BF16 if precision == "bf16" else EXACT
    ncnn = compare(reference, run(load_net(converted.param, converted.weights, options), inputs))
    assert 0 < onednn.mean_abs < 1.5 * ncnn.mean_abs
    # Every machine must pass the self-test, also one without these kernels.
    patterns = document.normalize(self_test_images((3, 32, 32)))
    for kernels in ("ncnn", "onednn"):
        logits = EngineModel(result.path, kernels=kernels).infer_each(patterns)
        error = np.abs(logits - document.self_test.logits)
        assert error.max() <= document.self_test.tolerance
