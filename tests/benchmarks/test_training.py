"""Throughput comparison with the reference loop: record, table, roofline, reference data."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import roofline, training
from benchmarks.reference_loop import PilImages, ReferenceLoop
from platform.models.config import ModelConfig


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_SIDES", {"cpu": (32, 64)})
    monkeypatch.setattr(roofline, "_COPY_BYTES", {"cpu": 1 << 20})


def test_comparison_prints_a_table_and_records_every_repetition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "training.json"
    arguments = "--models resnet20_cifar --batch-size 4 --images 16 --repetitions 2 --workers 0 --threads 1"
    assert (
        training.main([*arguments.split(), "--device", "cpu", "--precision", "fp32", "--json", str(path)])
        == 0
    )
    (row,) = json.loads(path.read_text())["results"]
    ours, theirs = (row[side]["images_per_s"] for side in ("ours", "reference"))
    assert row["ratios"] == pytest.approx([ours[0] / theirs[0], ours[1] / theirs[1]])
    assert len(row["ratios"]) == 2
    assert (row["ours"]["captured"], row["ours"]["compile_s"]) == (False, None)
    assert [overhead > 0 for overhead in row["ours"]["overhead_s"]] == [True, True]
    assert row["ratio_median"] == pytest.approx(sum(row["ratios"]) / 2)
    for side in ("ours", "reference"):
        rate, roof = row[side]["images_per_s_median"], sorted(row[side]["gemm_flop_per_s"])[2]
        assert row[side]["share_of_gemm"] == pytest.approx(rate * row["flop_per_image"] / roof)
        assert row[side]["share_of_memory"] == pytest.approx(
            rate * row[side]["byte_per_image"] / sorted(row[side]["copy_byte_per_s"])[2]
        )
    out = capsys.readouterr().out
    assert "memory, GB/s: " in out
    assert f"{row['ratio_median']:.2f}x" in out
    assert "resnet20_cifar" in out
    assert " s per epoch" in out
    assert "compiled" not in out
    row["ours"]["compile_s"] = 46.7
    settings = {"precision": "bf16", "reference_workers": 2, "batch_size": 4, "device": "cpu", "threads": 1}
    where = json.loads(path.read_text())["context"]
    assert "  compiled in 47 s" in training.table(where, settings, [row])


def test_diagnostics_option_measures_their_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cost.json"
    arguments = "--diagnostics --models resnet20_cifar --batch-size 4 --images 16 --repetitions 2 --threads 1"
    assert training.main([*arguments.split(), "--device", "cpu", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["results"]
    parts = zip(row["diagnosing_s"], row["training_s"], strict=True)
    assert row["shares"] == pytest.approx([part / whole for part, whole in parts])
    assert all(share > 0 for share in row["shares"])
    assert f"{row['share_median']:.2%}" in capsys.readouterr().out


def test_compile_option_reaches_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object, compile_network: bool, **__: object) -> None:
        raise RuntimeError(f"compile_network={compile_network}")

    monkeypatch.setattr("platform.training.loop.fit", fit)
    arguments = "--models resnet20_cifar --batch-size 4 --images 16 --repetitions 1 --workers 0 --threads 1"
    with pytest.raises(RuntimeError, match="compile_network=True"):
        training.main([*arguments.split(), "--device", "cpu", "--compile"])


@pytest.mark.parametrize(
    ("name", "gflop"),
    [("resnet18_cifar", 3.329), ("resnet32_cifar", 0.412)],
)
def test_flop_per_image_are_three_forward_passes_minus_the_first_layers_input_gradient(
    name: str, gflop: float
) -> None:
    assert roofline.flop_per_image(ModelConfig(name=name)) / 1e9 == pytest.approx(gflop, abs=5e-4)


def test_traffic_per_image_is_close_to_a_manual_estimate() -> None:
    """Estimate: 21.5 accesses per convolution output, so 126 and 32 FLOP per byte in bf16."""
    for name, flop_per_byte in (("resnet18_cifar", 126), ("resnet32_cifar", 32)):
        model = ModelConfig(name=name)
        byte = roofline.byte_per_image(model, precision="bf16", batch_size=128)
        assert roofline.flop_per_image(model) / byte == pytest.approx(flop_per_byte, rel=0.25)


def test_traffic_counts_reads_and_writes_but_not_views() -> None:
    images = torch.zeros(3, 4, dtype=torch.float32)
    with roofline._Traffic() as traffic:
        turned = images.t()[1:]
    assert traffic.byte == 0
    with roofline._Traffic() as traffic:
        turned + turned
    # 36 bytes are read twice and written once.
    assert traffic.byte == 3 * 36


def test_gemm_rate_has_every_repetition() -> None:
    rates = roofline.gemm_flop_per_s(torch.device("cpu"), "fp32", repetitions=3)
    assert len(rates) == 3
    assert min(rates) > 0


def test_reference_trains_on_the_same_images() -> None:
    data = training.random_data(16)
    images = PilImages(data.train.images, data.train.labels, data.normalization)
    assert len(images) == 16
    shape = (3, 1, 1)
    mean, std = (torch.tensor(part).view(shape) for part in (data.normalization.mean, data.normalization.std))
    plain = (torch.from_numpy(data.train.images[3]) / 255 - mean) / std
    # For every shift, the center of the crop is a part of the image or of its mirror image.
    parts = torch.cat([plain, plain.flip(-1)], dim=-1).unfold(1, 8, 1).unfold(2, 8, 1)
    for _ in range(10):
        middle = images[3][0][:, 12:20, 12:20].view(3, 1, 1, 8, 8)
        assert (parts - middle).abs().amax(dim=(0, 3, 4)).min() < 1e-4
    loop = ReferenceLoop(
        ModelConfig(name="resnet20_cifar"), images, batch_size=4, workers=0, device=torch.device("cpu")
    )
    before = loop._network.fc.weight.detach().clone()
    assert loop.images_per_s() > 0
    assert not torch.equal(before, loop._network.fc.weight.detach())
