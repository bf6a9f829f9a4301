"""Comparison of ncnn with other runtimes: equal networks, measurements, and the record."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the dependency group `peers`")
pytest.importorskip("onnxruntime", reason="needs the dependency group `peers`")
pytest.importorskip("openvino", reason="needs the dependency group `peers`")

from benchmarks.peers import model_formats, output_formats
from benchmarks.peers.compare import compare, interleave, with_ratios
from benchmarks.peers.onnx_files import write_int8_onnx, write_onnx
from benchmarks.peers.runtimes import ROWS, Row, load, rows_for
from benchmarks.peers.startup_cost import measure_startup
from deploy import benchmark
from deploy.conversion import export_source
from deploy.conversion.ncnn_net import load_net, run
from deploy.conversion.parity import compare as compare_logits
from deploy.conversion.parity import random_images
from deploy.model_files.model_folder import open_model_folder
from deploy.quantization.convert_precision import convert_precision
from platform.common.errors import UsageError, UserError
from platform.data import cache
from platform.models.trained import save_trained_model
from tests.deploy.examples import trained_like

IMAGES = random_images(4, (3, 32, 32), seed=5)


@pytest.fixture(scope="module")
def folder(export):
    return open_model_folder(export.path)


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "fp32.onnx"
    write_onnx(model, path)
    return path


def logits_of(row: Row, path: Path, inputs) -> np.ndarray:
    infer = load(row, path, threads=1)
    return np.stack([infer(image[None]) for image in inputs])


@pytest.mark.parametrize("row", [row for row in ROWS if row.precision == "fp32"], ids=lambda row: row.name)
def test_every_runtime_computes_the_same_network(row, folder, model_path, onnx_file):
    inputs = folder.document.normalize(IMAGES)
    path = {"engine": folder.path, "torch": model_path}.get(row.runtime, onnx_file)
    reference = run(load_net(folder.param, folder.weights), inputs)
    assert compare_logits(reference, logits_of(row, path, inputs)).max_abs < 1e-4


def test_int8_model_of_the_peers_is_small_and_close_to_fp32(folder, onnx_file, tmp_path):
    inputs = folder.document.normalize(random_images(32, (3, 32, 32), seed=6))
    write_int8_onnx(onnx_file, tmp_path / "int8.onnx", images=inputs)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * onnx_file.stat().st_size
    reference = run(load_net(folder.param, folder.weights), inputs[:4])
    for name in ("onnxruntime", "openvino"):
        row = Row(runtime=name, precision="int8")
        parity = compare_logits(reference, logits_of(row, tmp_path / "int8.onnx", inputs[:4]))
        assert 0 < parity.mean_abs < 0.1 * reference.std()


def test_the_onnx_graph_has_the_layers_of_a_resnet_only(onnx_file):
    import onnx

    kinds = Counter(node.op_type for node in onnx.load(onnx_file).graph.node)
    # Batch normalization is folded into the convolutions; two shortcuts are subsampled and padded.
    assert kinds["Conv"] == kinds["Relu"] == 31
    assert (kinds["Add"], kinds["AveragePool"], kinds["Pad"], kinds["Gemm"]) == (15, 2, 2, 1)
    assert "BatchNormalization" not in kinds


def test_nets_run_interleaved():
    log: list[int] = []

    def net(number: int):
        def infer(_image):
            log.append(number)
            return np.zeros(1, np.float32)

        return infer

    wall, cpu = interleave([net(0), net(1)], np.zeros((1, 3, 2, 2), np.float32), repetitions=5)
    # Five repetitions round up to two turns of four, each after an unmeasured run; the second is reversed.
    assert log == [0] * 5 + [1] * 10 + [0] * 5
    assert wall.shape == cpu.shape == (2, 8)
    assert (wall >= 0).all()


def test_ratio_is_to_the_best_peer_of_the_same_precision():
    def row(runtime, precision, cpu, wall, variant=""):
        times = {"cpu_ms": {"p50": cpu}, "latency_ms": {"p50": wall}}
        return {"runtime": runtime, "variant": variant, "precision": precision, **times}

    rows = with_ratios(
        [
            row("engine", "fp32", 2.0, 3.0),
            row("onnxruntime", "fp32", 4.0, 6.0),
            row("torch", "fp32", 5.0, 5.0, "eager"),
            row("openvino", "int8", 1.0, 1.0),
        ]
    )
    assert rows[0]["ratio_to_best_peer"] == {
        "cpu_ms": {"ratio": 0.5, "peer": "onnxruntime"},
        "latency_ms": {"ratio": 0.6, "peer": "torch eager"},
    }
    assert [row["ratio_to_best_peer"] for row in rows[1:]] == [None] * 3


def test_startup_cost_excludes_the_parent_process(folder):
    ballast = np.ones(40_000_000)  # 305 MiB, which the child must not report as its own
    found = measure_startup(
        Row(runtime="engine", precision="fp32"), folder.path, threads=1, input_shape=(3, 32, 32)
    )
    assert 0 < found["peak_rss_mb"] < ballast.nbytes / 2**20
    assert min(found[key] for key in ("import_ms", "load_ms", "first_inference_ms")) > 0


def test_failure_of_the_startup_process_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"onnxruntime in fp32 failed in a new process: .*no\.onnx"):
        measure_startup(
            Row(runtime="onnxruntime", precision="fp32"),
            tmp_path / "no.onnx",
            threads=1,
            input_shape=(3, 32, 32),
        )


def test_comparison_end_to_end(export, model_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "default_cache_dir", lambda: tmp_path / "no-data")
    monkeypatch.setattr("benchmarks.peers.compare.rows_for", lambda _: rows_for(("fp32",))[:2])
    record = compare(export.path, model_path, precisions=("fp32",), repetitions=4)
    engine, peer = record["results"]
    assert (engine["runtime"], peer["runtime"]) == ("engine", "onnxruntime")
    assert len(engine["samples_ms"]) == engine["repetitions"] == 4
    assert engine["latency_ms"]["min"] <= engine["latency_ms"]["p50"] <= engine["latency_ms"]["p90"]
    assert engine["ratio_to_best_peer"]["cpu_ms"]["peer"] == "onnxruntime"
    assert peer["parity"]["max_abs"] < 1e-4
    assert record["settings"]["images_label"] == "random"
    json.dumps(record, allow_nan=False)
    text = output_formats.comparison_text(record, "table")
    assert re.search(r"(?m)^fp32 +engine ncnn .* of onnxruntime$", text)
    assert "images (random)" in text
    assert output_formats.comparison_text(record, "md").count("\n") == 3
    rows = list(csv.DictReader(output_formats.comparison_text(record, "csv").splitlines()))
    assert [row["runtime"] for row in rows] == ["engine ncnn", "onnxruntime"]
    assert float(rows[1]["p50_ms"]) == peer["latency_ms"]["p50"]
    lines = [json.loads(line) for line in output_formats.comparison_text(record, "jsonl").splitlines()]
    assert [line["model"]["name"] for line in lines] == ["resnet32_cifar"] * 2


def test_exported_precision_is_used_unchanged(export, model, model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "default_cache_dir", lambda: tmp_path / "no-data")
    beside = export.path.with_name(f"{export.path.name}-bf16")
    convert_precision(export.path, beside, precision="bf16", images=IMAGES, images_label="random")
    (tmp_path / "scratch").mkdir()
    try:
        prepared = model_formats.prepare_models(
            beside, model_path, model, scratch=tmp_path / "scratch", precisions=("bf16",)
        )
    finally:
        for file in beside.iterdir():
            file.unlink()
        beside.rmdir()
    assert prepared.engine == {"fp32": export.path.absolute(), "bf16": beside.absolute()}
    assert prepared.path_for(Row(runtime="openvino", precision="bf16")).name == "fp32.onnx"


def test_different_network_is_rejected(export, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "default_cache_dir", lambda: tmp_path / "no-data")
    other = trained_like("resnet20_cifar")
    save_trained_model(tmp_path / "model.pt", other)
    with pytest.raises(UserError, match="does not hold the network of the trained model"):
        model_formats.prepare_models(
            export.path, tmp_path / "model.pt", other, scratch=tmp_path, precisions=("fp32",)
        )


def test_trained_model_is_found_in_its_sweep(tmp_path):
    (tmp_path / "checkpoints" / "final").mkdir(parents=True)
    with pytest.raises(UserError, match="give it with --model"):
        export_source.trained_model_of(tmp_path / "export")
    (tmp_path / "checkpoints" / "final" / "model.pt").touch()
    assert export_source.trained_model_of(tmp_path / "export-int8").parent.name == "final"


@pytest.mark.parametrize("word", ["fp23", "fp16"])
def test_a_precision_without_peers_is_a_usage_error(export, word):
    with pytest.raises(UsageError, match=rf"takes some of fp32,bf16,int8; got '{word}' \(did you mean"):
        benchmark.main([str(export.path), "--peers", "--precision", word])
