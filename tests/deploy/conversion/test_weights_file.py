"""Reading and writing ncnn's .bin files."""

import struct

import numpy as np
import pytest

from deploy.conversion.ncnn_net import BF16, load_net, run
from deploy.conversion.param_file import parse
from deploy.conversion.weights_file import LayerWeights, float_layer, read_weights, write_weights
from deploy.model_files.model_folder import open_model_folder
from deploy.winograd.rule import is_3x3_stride_1, without_winograd
from platform.common.errors import UserError


@pytest.fixture(scope="module")
def pair(export):
    folder = open_model_folder(export.path)
    return parse(folder.param.read_text()), folder.weights.read_bytes()


def test_fp32_file_round_trips(pair):
    param, content = pair
    assert write_weights(param, read_weights(param, content), "fp32") == content


def test_the_weights_are_the_trained_ones(pair, model):
    param, content = pair
    classifier = next(layer for layer in param.layers if layer.type == "InnerProduct")
    weights = read_weights(param, content)[classifier.name]
    assert np.array_equal(weights.weights, model.state_dict["fc.weight"].numpy())
    assert np.array_equal(weights.bias, model.state_dict["fc.bias"].numpy())


LAYER = LayerWeights(np.array([[1.0, -2.5, 0.1]], np.float32), np.array([3.0], np.float32))


def test_bytes_of_each_storage_by_hand():
    bias = struct.pack("<f", 3.0)
    assert float_layer("a", LAYER, "fp32") == struct.pack("<I3f", 0, 1.0, -2.5, np.float32(0.1)) + bias
    # 0.1 is 0x3DCCCCCD in fp32: bf16 rounds it up to 0x3DCD. Three halves are padded to eight bytes.
    assert (
        float_layer("a", LAYER, "bf16") == struct.pack("<I4H", 0x01348B83, 0x3F80, 0xC020, 0x3DCD, 0) + bias
    )
    assert float_layer("a", LAYER, "fp16") == struct.pack("<I3eH", 0x01306B47, 1.0, -2.5, 0.1, 0) + bias


def test_weight_beyond_fp16_is_rejected_with_its_layer():
    with pytest.raises(UserError, match="layer conv_7 has weights beyond 65504"):
        float_layer("conv_7", LayerWeights(LAYER.weights * 1e5, None), "fp16")


@pytest.mark.parametrize("cut", [4, 1000, -4])
def test_file_of_wrong_length_is_rejected(pair, cut):
    param, content = pair
    with pytest.raises(UserError, match=r"do not match the \.param file"):
        read_weights(param, content[:-cut] if cut > 0 else content + b"\0" * -cut)


def test_fp16_file_is_rejected_as_source(pair):
    param, content = pair
    with pytest.raises(UserError, match="not in fp32"):
        read_weights(param, write_weights(param, read_weights(param, content), "fp16"))


def test_bf16_file_and_fp32_file_give_equal_logits_in_bf16(pair, export, tmp_path):
    # ncnn rounds untransformed weights to bf16 itself, so rounding them in the file changes nothing.
    param, content = pair
    text = tmp_path / "model.param"
    names = [layer.name for layer in param.layers if is_3x3_stride_1(layer)]
    text.write_text(without_winograd(param, names).text())
    (tmp_path / "bf16.bin").write_bytes(write_weights(param, read_weights(param, content), "bf16"))
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    expected = run(load_net(text, export.path / "model.bin", BF16), images)
    assert np.array_equal(run(load_net(text, tmp_path / "bf16.bin", BF16), images), expected)
