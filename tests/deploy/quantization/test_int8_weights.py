"""int8 files, compared with hand-made bytes and with ncnn's own quantization."""

import struct

import numpy as np

from deploy.conversion.ncnn_net import load_net, run
from deploy.conversion.param_file import parse
from deploy.conversion.weights_file import LayerWeights, float_layer, read_weights
from deploy.model_files.model_folder import open_model_folder
from deploy.quantization.int8_weights import quantize, weight_scales, write_int8

TEXT = """7767517
4 4
Input in 0 1 in0
Convolution a 1 1 in0 1 0=2 1=1 5=1 6=2
Convolution b 1 1 1 2 0=1 1=1 5=1 6=2
InnerProduct c 1 1 2 out0 0=1 1=1 2=1
"""
WEIGHTS = {
    "a": LayerWeights(np.array([[2.0], [-0.5]], np.float32), np.array([0.25, 0.5], np.float32)),
    "b": LayerWeights(np.array([[1.0, -0.25]], np.float32), np.array([0.0], np.float32)),
    "c": LayerWeights(np.array([[1.0]], np.float32), np.array([0.0], np.float32)),
}


def test_bytes_of_a_hand_made_network():
    param, content = write_int8(parse(TEXT), WEIGHTS, {"a": 10.0, "b": 20.0})
    # The output of `a` is int8 (102, with b's input scale at its end); `c` stays fp32.
    assert [layer.value(8) for layer in param.layers] == [0, 102, 2, 0]
    expected = struct.pack("<I2b2x2f2fff", 0x000D4B38, 127, -127, 0.25, 0.5, 63.5, 254.0, 10.0, 20.0)
    expected += struct.pack("<I2b2xfff", 0x000D4B38, 127, -32, 0.0, 127.0, 20.0)
    expected += struct.pack("<Iff", 0, 1.0, 0.0)
    assert content == expected


def test_output_with_an_fp32_reader_stays_float():
    param, _ = write_int8(parse(TEXT), WEIGHTS, {"a": 10.0})
    assert [layer.value(8) for layer in param.layers] == [0, 2, 0, 0]


def test_halves_are_rounded_away_from_zero():
    values = np.array([[0.5, -0.5, 1.5, -2.5, 200.0, -200.0]], np.float32)
    assert quantize(values, np.ones(1, np.float32)).tolist() == [[1, -1, 2, -3, 127, -127]]


def test_dead_channel_gets_a_finite_scale():
    assert weight_scales(np.array([[0.0, 0.0], [1.0, -2.0]], np.float32)).tolist() == [1.0, 63.5]


def test_ncnn_quantizes_fp32_weights_to_the_same_numbers(export, tmp_path):
    # ncnn quantizes fp32 weights on loading if the .param file says int8.
    folder = open_model_folder(export.path)
    param = parse(folder.param.read_text())
    weights = read_weights(param, folder.weights.read_bytes())
    convolutions = [layer.name for layer in param.layers if layer.type == "Convolution"]
    mine, content = write_int8(param, weights, dict.fromkeys(convolutions, 25.0))
    (tmp_path / "int8.param").write_text(mine.text())
    (tmp_path / "mine.bin").write_bytes(content)
    theirs = []
    for layer in mine.layers:
        if layer.name in weights:
            theirs.append(float_layer(layer.name, weights[layer.name], "fp32"))
        if layer.name in convolutions:
            theirs.append(weight_scales(weights[layer.name].weights).tobytes())
            theirs.append(struct.pack("<f", 25.0) * (2 if layer.value(8) > 100 else 1))
    (tmp_path / "theirs.bin").write_bytes(b"".join(theirs))
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    mine_out, theirs_out = (
        run(load_net(tmp_path / "int8.param", tmp_path / name), images) for name in ("mine.bin", "theirs.bin")
    )
    assert np.array_equal(mine_out, theirs_out)
    assert len(content) < 0.3 * folder.weights.stat().st_size
