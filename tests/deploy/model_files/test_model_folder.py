"""Validation of model folders: the document, and damaged or missing files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy.model_files.model_folder import ModelFolder, open_model_folder, self_test_images
from platform.common.errors import UserError


@pytest.fixture
def folder(export: ModelFolder, tmp_path: Path) -> Path:
    return shutil.copytree(export.path, tmp_path / "export")


def rewrite(folder: Path, change) -> None:
    document = json.loads((folder / "model.json").read_text())
    change(document)
    (folder / "model.json").write_text(json.dumps(document))


def test_valid_folder_opens(folder):
    opened = open_model_folder(folder)
    assert opened.document.name == "resnet32_cifar"
    assert opened.param == folder / "model.param"


def test_unknown_keys_are_kept(folder):
    rewrite(folder, lambda document: document.update(note="mine"))
    assert open_model_folder(folder).document.model_dump()["note"] == "mine"


@pytest.mark.parametrize("name", ["model.json", "model.param", "model.bin"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_model_folder(folder)


def test_missing_folder_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"no model folder at .*nowhere"):
        open_model_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.param", "model.bin"])
def test_one_changed_byte_is_detected(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged: its sha256 is [0-9a-f]{{12}}"):
        open_model_folder(folder)


def test_truncated_file_is_detected(folder):
    content = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(content[:-4])
    with pytest.raises(UserError, match=f"has {len(content) - 4} bytes, model.json says {len(content)}"):
        open_model_folder(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1, "name": "\\ud800'])
def test_invalid_document_is_rejected(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.json .*export the model again"):
        open_model_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema version 2, this program reads 1"),
        (lambda d: d.pop("schema_version"), "schema version None"),
        (lambda d: d.update(precision="fp8"), "precision: 'fp8' is not one of fp32, fp16, bf16, int8"),
        (lambda d: d["input"].update(height=0), "input.height"),
        (lambda d: d["input"].update(with_=1), "input.with_: unknown key"),
        (lambda d: d["normalization"].update(mean=[0.5]), "normalization.mean needs one number per channel"),
        (lambda d: d["normalization"].update(std=[1, 1, 0]), "normalization.std.2"),
        (lambda d: d["self_test"]["logits"][1].pop(), "self_test.logits needs one number per class"),
        (lambda d: d["files"].pop("model.bin"), "files must be model.param and model.bin"),
        (lambda d: d["files"]["model.bin"].update(sha256="x"), "files.model.bin.sha256"),
    ],
)
def test_invalid_value_is_rejected_with_its_key(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        open_model_folder(folder)


def test_self_test_images_are_the_published_pattern():
    images = self_test_images((3, 32, 32))
    assert images.shape == (3, 3, 32, 32)
    for k, c, h, w in [(0, 0, 0, 0), (1, 2, 31, 30), (2, 1, 7, 5)]:
        assert images[k, c, h, w] == (31 * ((c * 32 + h) * 32 + w) + 17 * h + 97 * k) % 256
    assert np.array_equal(images[0, 0, 0, :4], [0, 31, 62, 93])
