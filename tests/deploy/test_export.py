"""Export of a network with random weights to a model folder with PyTorch's logits."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.conversion import parity
from deploy.conversion.export_source import find_dataset, find_target
from deploy.conversion.ncnn_net import load_net, run
from deploy.export import export_model
from deploy.model_files.model_folder import open_model_folder, self_test_images
from deploy.quantization.evaluation_images import spread
from platform.common.errors import UserError
from platform.data import cache, catalog
from platform.data.config import DataConfig
from platform.models.trained import save_trained_model

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_document_describes_the_network(export, model):
    document = open_model_folder(export.path).document
    assert (document.name, document.precision) == ("resnet32_cifar", "fp32")
    assert (document.input.channels, document.input.height, document.input.width) == (3, 32, 32)
    assert document.output.classes == model.class_names
    assert document.normalization.mean == tuple(model.mean.tolist())
    assert document.source.model_dump() == {
        "run": "final",
        "sweep": "s-20260101-000000",
        "commit": "abc",
        "data": "generated",
        "test_accuracy": 0.25,
    }
    assert set(document.exporter) == {"torch", "pnnx", "ncnn"}


def test_parity_is_measured_on_256_images(export):
    document = open_model_folder(export.path).document
    assert document.parity.images >= 256
    assert document.parity.data == "random"
    assert 0 < document.parity.max_abs <= 1e-4
    assert document.parity.top1_agreement == 1


def test_self_test_has_pytorchs_logits_and_ncnn_reproduces_them(export, model):
    folder = open_model_folder(export.path)
    images = model.normalize(torch.from_numpy(self_test_images(model.input_shape)))
    with torch.no_grad():
        expected = model.network()(images).numpy()
    np.testing.assert_allclose(folder.document.self_test.logits, expected, atol=1e-6)
    np.testing.assert_allclose(
        run(load_net(folder.param, folder.weights), images.numpy()), expected, atol=1e-4
    )


@pytest.fixture
def few_images(monkeypatch):
    """Compare on eight random images, for tests of something else than the comparison."""
    monkeypatch.setattr(parity, "MIN_IMAGES", 8)


def test_mean_image_is_stored_in_channel_row_column_order(few_images, model, tmp_path):
    mean = model.mean[:, None, None].repeat(1, 32, 32)
    mean[1, 2, 3] = 0.25
    save_trained_model(tmp_path / "model.pt", replace(model, mean=mean))
    result = export_model(tmp_path / "model.pt", tmp_path / "export")
    stored = open_model_folder(result.path).document.normalization.mean
    assert len(stored) == 3 * 32 * 32
    assert stored[(1 * 32 + 2) * 32 + 3] == 0.25


def test_export_with_wrong_logits_is_rejected_and_the_old_one_kept(
    export, few_images, model_path, tmp_path, monkeypatch
):
    old = shutil.copytree(export.path, tmp_path / "export")
    before = files(old)
    monkeypatch.setattr(parity, "FP32_TOLERANCE", 1e-12)
    with pytest.raises(UserError, match=r"logits differ from PyTorch's by up to .* must stay within 1e-12"):
        export_model(model_path, old)
    assert files(old) == before
    with pytest.raises(UserError, match="logits differ"):
        export_model(model_path, tmp_path / "new")
    assert list(tmp_path.iterdir()) == [old]


def test_large_logits_are_accepted(few_images, model, tmp_path):
    """After a short training logits exceed 1,000, and rounding errors exceed any absolute limit."""
    large = {
        name: weights * 1e4 if name.startswith("fc.") else weights
        for name, weights in model.state_dict.items()
    }
    save_trained_model(tmp_path / "model.pt", replace(model, state_dict=large))
    result = export_model(tmp_path / "model.pt", tmp_path / "export")
    assert result.document.parity.max_abs > 1e-4
    assert result.document.parity.max_relative < 1e-5
    self_test = open_model_folder(result.path).document.self_test
    assert self_test.tolerance == pytest.approx(1e-3 * np.abs(self_test.logits).max())


def test_network_with_nan_weights_is_rejected(few_images, model, tmp_path):
    weights = {**model.state_dict, "fc.bias": model.state_dict["fc.bias"] * float("nan")}
    save_trained_model(tmp_path / "model.pt", replace(model, state_dict=weights))
    with pytest.raises(UserError, match="weights must be finite"):
        export_model(tmp_path / "model.pt", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_find_target(model_path, tmp_path, monkeypatch):
    assert find_target(str(model_path), runs=tmp_path).out_dir == model_path.parent / "export"
    assert find_target(str(model_path.parent), runs=tmp_path).model_path == model_path
    sweep = tmp_path / "resnet32-20260101-000000"
    (sweep / "checkpoints" / "final").mkdir(parents=True)
    (sweep / "spec.yaml").touch()
    with pytest.raises(UserError, match="has no final model yet"):
        find_target(sweep.name, runs=tmp_path)
    shutil.copy(model_path, sweep / "checkpoints" / "final")
    (sweep / "test.json").write_text('{"accuracy": 0.5}')
    for name in (sweep.name, str(sweep), "latest"):
        target = find_target(name, runs=tmp_path)
        assert target.model_path == sweep / "checkpoints" / "final" / "model.pt"
        assert target.out_dir == sweep / "export"
        assert target.source == {"sweep": sweep.name, "run": "final", "test_accuracy": 0.5}
    with pytest.raises(UserError, match=r"no file nothing\.pt"):
        find_target("nothing.pt", runs=tmp_path)
    with pytest.raises(UserError, match="no sweep 'nothing'"):
        find_target("nothing", runs=tmp_path)


def test_the_data_set_comes_from_the_cache_by_label(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "default_cache_dir", lambda: tmp_path)
    assert find_dataset(model, None) is None
    info = catalog.prepare_dataset(DataConfig(name="generated"), cache_dir=tmp_path)
    assert find_dataset(model, None) == info


def test_comparison_images_are_evenly_spaced():
    assert spread(np.arange(100), 4).tolist() == [0, 33, 66, 99]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.export", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_prints_only_the_folder(model_path, tmp_path):
    done = run_command(model_path, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert "ncnn against PyTorch on 256 images" in done.stderr
    assert set(files(tmp_path / "out")) == {"model.param", "model.bin", "model.json"}


def test_command_rejects_an_unreadable_model_in_one_line(tmp_path):
    (tmp_path / "model.pt").write_text("not a model")
    done = run_command(tmp_path / "model.pt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
