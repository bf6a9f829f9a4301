"""The program `resnet18`: results, messages, exit codes."""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.engine_build.engine import EngineBinaries

from .conftest import CLASSES, TinyModel


@pytest.fixture
def classify(engine: EngineBinaries) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(engine.resnet18), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)

    return run


Classify = Callable[..., subprocess.CompletedProcess[str]]


def refusal(answer: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the single error message of a program that exited with `code`."""
    assert answer.returncode == code, answer.stderr
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr


def test_probabilities_are_those_of_the_network(
    classify: Classify, tiny: TinyModel, tiny_folder: Path, write_image: Callable[[int], Path]
) -> None:
    images = [write_image(seed) for seed in range(3)]
    answer = classify("--model", tiny_folder, "--json", *images)
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    for path, record in zip(images, document["images"], strict=True):
        logits = tiny.logits(np.asarray(Image.open(path)).transpose(2, 0, 1))
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        got = {item["label"]: item["probability"] for item in record["top"]}
        assert list(got) == [CLASSES[i] for i in np.argsort(-expected)]
        np.testing.assert_allclose([got[name] for name in CLASSES], expected, atol=1e-5)


def test_mean_image_gives_the_probabilities_of_the_equal_channel_mean(
    classify: Classify, tiny: TinyModel, tmp_path: Path, write_image: Callable[[int], Path]
) -> None:
    norm = tiny.document["normalization"]
    mean = np.broadcast_to(np.array(norm["mean"])[:, None, None], (3, 8, 8)).flatten().tolist()
    folder = tiny.write(tmp_path / "mean", normalization={"mean": mean, "std": norm["std"]})
    found = []
    for path in (folder, tiny.write(tmp_path / "plain")):
        answer = classify("--model", path, "--json", write_image(0))
        assert answer.returncode == 0, answer.stderr
        (record,) = json.loads(answer.stdout)["images"]
        found.append({item["label"]: item["probability"] for item in record["top"]})
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_text_output_lists_five_classes(
    classify: Classify, tiny_folder: Path, write_image: Callable[[int], Path]
) -> None:
    answer = classify(write_image(0), env={"RESNET_SWEEP_MODEL": str(tiny_folder)})
    assert answer.returncode == 0
    assert len(answer.stdout.splitlines()) == 5
    assert all(" % " in line for line in answer.stdout.splitlines())


def test_folder_and_stdin(classify: Classify, tiny_folder: Path, write_image: Callable[[int], Path]) -> None:
    path = write_image(3)
    from_folder = json.loads(classify("--model", tiny_folder, "--json", path.parent).stdout)
    assert [record["path"] for record in from_folder["images"]] == [str(path)]
    with path.open("rb") as stdin:
        answer = classify("--model", tiny_folder, "--json", "-", stdin=stdin)
    assert json.loads(answer.stdout)["images"][0]["top"] == from_folder["images"][0]["top"]


def test_one_invalid_image_does_not_affect_the_others(
    classify: Classify, tiny_folder: Path, tmp_path: Path, write_image: Callable[[int], Path]
) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image\n")
    answer = classify("--model", tiny_folder, "--json", text, write_image(1))
    assert "looks like a text file" in refusal(answer)
    records = json.loads(answer.stdout)["images"]
    assert records[0]["error"]["code"] == "image_invalid"
    assert len(records[1]["top"]) == 5


def test_fifos_and_devices_are_rejected_without_reading_them(
    classify: Classify, tiny: TinyModel, tiny_folder: Path, tmp_path: Path, write_image: Callable[[int], Path]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        assert "not a regular file" in refusal(classify("--model", tiny_folder, path))
    with Path("/dev/zero").open("rb") as stdin:
        answer = classify("--model", tiny_folder, "-", stdin=stdin)
    assert "stdin: more than the limit of 268435456 bytes" in refusal(answer)
    for name in ("model.json", "model.param", "model.bin"):
        folder = without(tiny, tmp_path / name.replace(".", "-"), name)
        os.mkfifo(folder / name)
        assert "not a regular file" in refusal(classify("--model", folder, write_image(0)))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--modle", "x"], "did you mean --model?"),
        (["--model"], "needs a value"),
        (["--top", "0", "x"], "from 1 to"),
        (["x.png"], "RESNET_SWEEP_MODEL"),
        (["--model", "x"], "at least one image"),
    ],
)
def test_usage_errors(classify: Classify, arguments: list[str], part: str) -> None:
    assert part in refusal(classify(*arguments, env={}), code=2)


def flipped(tiny: TinyModel) -> bytes:
    data = bytearray(tiny.bin)
    data[100] ^= 1
    return bytes(data)


def other_weights(tiny: TinyModel) -> bytes:
    return TinyModel({**tiny.weights, "fc": tiny.weights["fc"][::-1]}, {}).bin


def without(tiny: TinyModel, folder: Path, name: str) -> Path:
    (tiny.write(folder) / name).unlink()
    return folder


INT8_TAG = struct.pack("<I", 0x000D4B38)

DAMAGES: dict[str, Callable[[TinyModel, Path], Path]] = {
    "SHA-256": lambda tiny, to: tiny.write(to, seal=False, bin=flipped(tiny)),
    "No such file": lambda tiny, to: without(tiny, to, "model.bin"),
    "not a model folder": lambda tiny, to: without(tiny, to, "model.json"),
    "model.bin: 0 bytes, but model.json declares": lambda tiny, to: tiny.write(to, seal=False, bin=b""),
    "bytes, but model.json declares": lambda tiny, to: tiny.write(to, seal=False, bin=tiny.bin[:-4]),
    "ends within the weights": lambda tiny, to: tiny.write(to, bin=tiny.bin[:-4]),
    "but model.param requires": lambda tiny, to: tiny.write(to, bin=tiny.bin + bytes(4)),
    "are int8, but model.json declares fp32": lambda tiny, to: tiny.write(to, bin=INT8_TAG + tiny.bin[4:]),
    "self-test failed": lambda tiny, to: tiny.write(to, bin=other_weights(tiny)),
    "schema_version is 2": lambda tiny, to: tiny.write(to, schema_version=2),
    "declares 4 classes": lambda tiny, to: tiny.write(
        to,
        output={"blob": "out0", "classes": CLASSES[:4]},
        self_test={"tolerance": 1, "logits": [[0.0] * 4]},
    ),
    "must be fp32, fp16, bf16 or int8": lambda tiny, to: tiny.write(to, precision="fp64"),
    "not supported by this engine": lambda tiny, to: tiny.write(
        to, param=tiny.param.replace(b"Pooling", b"Pulling")
    ),
    "do not match 3 input channels": lambda tiny, to: tiny.write(
        to, param=tiny.param.replace(b"6=108", b"6=144")
    ),
    "must have exactly one input": lambda tiny, to: tiny.write(
        to, input=tiny.document["input"] | {"blob": "data"}
    ),
    "input.channels": lambda tiny, to: tiny.write(to, input=tiny.document["input"] | {"channels": 4}),
}


@pytest.mark.parametrize("part", DAMAGES)
def test_damaged_folders_are_rejected(
    classify: Classify, tiny: TinyModel, tmp_path: Path, write_image: Callable[[int], Path], part: str
) -> None:
    folder = DAMAGES[part](tiny, tmp_path / "damaged")
    assert part in refusal(classify("--model", folder, write_image(0)))


def test_self_test_can_be_skipped(
    classify: Classify, tiny: TinyModel, tmp_path: Path, write_image: Callable[[int], Path]
) -> None:
    folder = tiny.write(tmp_path / "other", bin=other_weights(tiny))
    answer = classify("--model", folder, "--no-self-test", write_image(0))
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 5


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 (package qemu-user) is missing")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the engine is not an x86-64 program")
@pytest.mark.parametrize("processor", ["Nehalem", "Haswell"])
def test_old_processors_need_no_missing_instruction(
    engine: EngineBinaries, tiny_folder: Path, write_image: Callable[[int], Path], processor: str
) -> None:
    program = ["qemu-x86_64", "-cpu", processor, str(engine.resnet18)]
    command = [*program, "--model", str(tiny_folder), str(write_image(0))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 5
