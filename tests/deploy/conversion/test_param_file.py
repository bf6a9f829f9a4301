"""Reading and editing ncnn's .param text."""

import pytest

from deploy.conversion.param_file import FEATURE_MASK, parse
from platform.common.errors import UserError

TEXT = """7767517
3 3
Input                    in0                      0 1 in0
Convolution              conv_0                   1 1 in0 1 0=8 1=3 11=3 5=1 6=216
Reduction                mean_2                   1 1 1 out0 0=3 1=0 -23303=2,1,2 4=0 5=1
"""


def test_text_round_trips():
    assert parse(TEXT).text() == TEXT


def test_layers_are_read():
    layer = parse(TEXT).layers[1]
    assert (layer.type, layer.name, layer.inputs, layer.outputs) == (
        "Convolution",
        "conv_0",
        ("in0",),
        ("1",),
    )
    assert layer.value(6) == 216
    assert layer.value(3, 1) == 1


def test_new_key_is_appended_to_the_line():
    layer = parse(TEXT).layers[1].with_value(FEATURE_MASK, 64)
    assert layer.text == TEXT.splitlines()[3] + " 31=64"
    assert layer.value(FEATURE_MASK) == 64


def test_value_is_replaced_only_under_its_own_key():
    layer = parse(TEXT).layers[1].with_value(1, 5)
    assert " 1=5 11=3 " in layer.text
    assert layer.value(1) == 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("7767517", "7767518"), "first line must be 7767517"),
        (lambda text: text.replace("3 3", "4 3"), "declares 4 layers and contains 3"),
        (lambda text: text.replace("1 1 in0 1 ", "1 9 in0 1 "), "a line is not a valid ncnn layer"),
        (lambda text: text.replace("5=1 6", "5:1 6"), "a line is not a valid ncnn layer"),
        (lambda _: "", "first line"),
    ],
    ids=["magic", "count", "blobs", "parameter", "empty"],
)
def test_damaged_text_is_rejected(damage, message):
    with pytest.raises(UserError, match=message):
        parse(damage(TEXT), source="x.param")
