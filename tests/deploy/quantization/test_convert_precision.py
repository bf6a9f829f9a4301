"""Conversion of an fp32 model folder to lower precisions: size, logits and description."""

import shutil

import numpy as np
import pytest

from deploy.conversion.ncnn_net import BF16, EXACT, load_net, run
from deploy.conversion.parity import random_images
from deploy.model_files.model_folder import open_model_folder, self_test_images
from deploy.quantization import activation_scales
from deploy.quantization.convert_precision import convert_precision
from platform.common.errors import UsageError, UserError

IMAGES = random_images(32, (3, 32, 32), seed=1)
CALIBRATION = random_images(64, (3, 32, 32), seed=2)


@pytest.mark.parametrize(
    ("precision", "share", "error"), [("fp16", 0.51, 0.002), ("bf16", 0.51, 0.02), ("int8", 0.27, 0.1)]
)
def test_converted_folder_is_smaller_and_close_to_fp32(
    export, tmp_path, monkeypatch, precision, share, error
):
    monkeypatch.setattr(activation_scales, "MIN_IMAGES", len(CALIBRATION))
    result = convert_precision(
        export.path,
        tmp_path / precision,
        precision=precision,
        images=IMAGES,
        images_label="random",
        calibration=CALIBRATION if precision == "int8" else None,
    )
    source, folder = open_model_folder(export.path), open_model_folder(tmp_path / precision)
    assert folder.document.precision == result.document.precision == precision
    assert folder.document.files["model.bin"].bytes <= share * source.document.files["model.bin"].bytes
    logits = run(load_net(source.param, source.weights), source.document.normalize(IMAGES))
    assert 0 < result.document.parity.mean_abs < error * logits.std()
    assert folder.document.parity.reference == "ncnn fp32"
    assert (folder.document.quantization is not None) == (precision == "int8")
    # The engine's self-test on loading.
    net = load_net(folder.param, folder.weights, BF16 if precision == "bf16" else EXACT)
    logits = run(net, folder.document.normalize(self_test_images((3, 32, 32))))
    assert np.abs(logits - folder.document.self_test.logits).max() <= folder.document.self_test.tolerance
    assert folder.document.self_test.logits == source.document.self_test.logits


def test_int8_needs_enough_calibration_images(export, tmp_path):
    for images in (None, CALIBRATION):
        with pytest.raises(UsageError, match="at least 512 calibration images, got"):
            convert_precision(
                export.path,
                tmp_path / "out",
                precision="int8",
                images=IMAGES,
                images_label="random",
                calibration=images,
            )
    assert not (tmp_path / "out").exists()


def test_only_fp32_folders_are_converted(export, tmp_path):
    def convert(source, precision):
        convert_precision(source, tmp_path / "out", precision=precision, images=IMAGES, images_label="random")

    with pytest.raises(UsageError, match="already fp32"):
        convert(export.path, "fp32")
    convert(export.path, "fp16")
    half = shutil.move(tmp_path / "out", tmp_path / "half")
    with pytest.raises(UserError, match="is in fp16; only an fp32 export can be converted"):
        convert(half, "bf16")


def test_normalize_agrees_with_the_trained_model(export, model):
    import torch

    expected = model.normalize(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(open_model_folder(export.path).document.normalize(IMAGES), expected, atol=1e-6)
