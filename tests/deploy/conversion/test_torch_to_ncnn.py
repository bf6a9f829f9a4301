"""Conversion by pnnx: unsupported networks and failures of pnnx."""

import subprocess

import pytest
import torch
from torch import Tensor, nn

from deploy.conversion import torch_to_ncnn
from deploy.conversion.param_file import parse
from deploy.conversion.torch_to_ncnn import check_converted, convert
from platform.common.errors import UserError


class Strided(nn.Module):
    """A strided slice, as in common implementations of the option A shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x)[:, :, ::2, ::2].mean((2, 3)))


def test_strided_slice_is_rejected_by_name(tmp_path):
    with pytest.raises(
        UserError, match=r"no layer for Tensor\.slice \(pnnx: slice with step 2 is not supported"
    ):
        convert(Strided().eval(), input_shape=(3, 8, 8), scratch=tmp_path)


def param(*lines: str) -> str:
    return "\n".join(["7767517", f"{len(lines)} 9", *lines, ""])


def test_two_outputs_are_rejected():
    text = param("Input a 0 1 in0", "Split b 1 2 in0 out0 out1")
    with pytest.raises(UserError, match=r"one input and one output; .*outputs \['out0', 'out1'\]"):
        check_converted(parse(text))


def test_unconverted_torch_layer_is_rejected():
    with pytest.raises(UserError, match=r"no layer for aten::cummax, torch\.real"):
        check_converted(
            parse(param("Input a 0 1 in0", "aten::cummax b 1 1 in0 1", "torch.real c 1 1 1 out0"))
        )


class Supported(Strided):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "echo 'cannot map storage'; exit 134",
            "pnnx failed with status 134; its last lines: cannot map storage",
        ),
        ("echo done", "pnnx wrote no network.ncnn.param; its last lines: done"),
        ("sleep 10", "pnnx did not finish within 0.2 s"),
    ],
)
def test_every_failure_of_pnnx_is_reported(tmp_path, monkeypatch, program, message):
    script = tmp_path / "pnnx"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(torch_to_ncnn, "find_pnnx", lambda: script)
    monkeypatch.setattr(torch_to_ncnn, "TIMEOUT_S", 0.2 if "sleep" in program else 60)
    with pytest.raises(UserError, match=message):
        convert(Supported().eval(), input_shape=(3, 8, 8), scratch=tmp_path)


def test_weights_stay_in_fp32(tmp_path):
    network = Supported().eval()
    _, weights = convert(network, input_shape=(3, 8, 8), scratch=tmp_path)
    assert network.conv.weight.detach().numpy().tobytes() in weights.read_bytes()
    assert subprocess.run([torch_to_ncnn.find_pnnx()], capture_output=True, check=False).stderr
    assert torch.is_grad_enabled()
