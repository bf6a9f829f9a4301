"""The rule for Winograd's transform: chosen layers, unchanged logits, shape hints."""

from pathlib import Path

import numpy as np
import pytest

from deploy.conversion.ncnn_net import load_net, run
from deploy.conversion.param_file import FEATURE_MASK, NO_WINOGRAD, SHAPE_HINTS, parse
from deploy.conversion.parity import compare
from deploy.conversion.torch_to_ncnn import convert
from deploy.model_files.model_folder import ModelFolder
from deploy.winograd.rule import blob_shapes, is_3x3_stride_1, tune_by_rule, without_winograd
from tests.deploy.examples import trained_like


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    model = trained_like("resnet18_cifar")
    return convert(
        model.network(), input_shape=model.input_shape, scratch=tmp_path_factory.mktemp("resnet18")
    )


def test_resnet18_uses_no_winograd_in_its_last_two_stages(resnet18):
    param, weights = resnet18
    text, names = tune_by_rule(param.read_text(), weights, input_shape=(3, 32, 32))
    layers = {layer.name: layer for layer in parse(text).layers}
    # Three convolutions of 256 and three of 512 channels at stride 1; 8 and 4 pixels wide.
    assert [layers[name].value(0) for name in names] == [256] * 3 + [512] * 3
    assert all(
        layer.value(FEATURE_MASK) == (NO_WINOGRAD if name in names else 0) for name, layer in layers.items()
    )


def test_tuning_keeps_the_logits(resnet18, tmp_path):
    param, weights = resnet18
    text, _ = tune_by_rule(param.read_text(), weights, input_shape=(3, 32, 32))
    (tmp_path / "tuned.param").write_text(text)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    before, after = (run(load_net(file, weights), images) for file in (param, tmp_path / "tuned.param"))
    assert compare(before, after).max_abs < 1e-4
    # Another algorithm rounds differently: equal bits would mean that the edit has no effect.
    assert not np.array_equal(before, after)


def test_resnet32_keeps_winograd_everywhere(export: ModelFolder):
    assert (export.document.tuning or {})["no_winograd"] == ()
    param = parse(export.param.read_text())
    shapes = blob_shapes(param, export.weights, input_shape=(3, 32, 32))
    convolutions = [layer for layer in param.layers if layer.type == "Convolution"]
    assert [shapes[layer.outputs[0]][-1] for layer in convolutions] == [32] * 11 + [16] * 10 + [8] * 10
    # All except the two that halve the image.
    assert sum(is_3x3_stride_1(layer) for layer in convolutions) == 29


def test_file_sets_every_mask_and_shape_hint(export: ModelFolder):
    layers = parse(export.param.read_text()).layers
    candidates = [layer for layer in layers if is_3x3_stride_1(layer)]
    assert all(dict(layer.params)[FEATURE_MASK] == "0" for layer in candidates)
    hints = {layer.name: dict(layer.params)[SHAPE_HINTS] for layer in layers}
    assert (hints["in0"], hints["gap_0"]) == ("4,3,32,32,3", "4,1,64,1,1")
    assert hints["splitncnn_0"] == "8,3,32,32,16,3,32,32,16"


def test_other_bits_of_a_layers_mask_are_kept():
    text = "7767517\n1 1\nConvolution a 0 1 out0 0=8 1=3 6=216 31=4\n"
    (layer,) = without_winograd(parse(text), {"a"}).layers
    assert layer.value(FEATURE_MASK) == 4 | NO_WINOGRAD
    (layer,) = without_winograd(parse(text.replace("31=4", "31=68")), set()).layers
    assert layer.value(FEATURE_MASK) == 4
