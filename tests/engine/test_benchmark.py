"""The engine's benchmark: records, tables, and the default model."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.benchmark import newest_champion, parse_numbers
from deploy.benchmark_accuracy import add_accuracy
from deploy.engine_build.engine import EngineBinaries, _with_time_left, run_benchmark
from deploy.engine_build.ncnn_source import ENGINE_DIR
from deploy.record_text import engine_text
from deploy.winograd.measured_choice import processor_name
from platform.common import time_left
from platform.common.errors import UsageError, UserError
from platform.data.dataset import Split

from .conftest import TinyModel


def test_record_has_a_row_per_thread_count(engine: EngineBinaries, tiny_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "benchmark.json"
    record = run_benchmark(
        tiny_folder, threads=(1, 2), repetitions=20, min_time_s=0, json_path=kept, progress=lambda _: None
    )
    assert json.loads(kept.read_text()) == record
    assert record["schema_version"] == 2
    assert record["models"][0]["test_accuracy"] == 0.5
    assert record["context"]["energy"] == "unavailable"
    assert [row["threads"] for row in record["results"]] == [1, 2]
    for row in record["results"]:
        latency = row["latency_ms"]
        assert len(row["samples_ms"]) == row["repetitions"] >= 20
        assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
        assert latency["p50"] == pytest.approx(np.median(row["samples_ms"]))
        assert row["peak_rss_mb"] > 1
    lines = [json.loads(line) for line in engine_text(record, "jsonl").splitlines()]
    assert [line["result"] for line in lines] == record["results"]
    assert lines[1]["model"] == record["models"][0]


def test_counts_of_the_engine_get_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_left, "_EVERY_S", 0.0)
    messages: list[str] = []
    report = _with_time_left(messages.append)
    for message in (
        "loading export",
        *(f"measuring 2 configurations round-robin: {done} %" for done in (0, 50)),
    ):
        report(message)
    assert [re.sub(r"[\d.]+ s left", "N s left", message) for message in messages] == [
        "loading export",
        "measuring 2 configurations round-robin",
        "measuring 2 configurations round-robin: 50 %, N s left",
    ]


def test_every_model_runs_in_every_combination(
    engine: EngineBinaries, tiny: TinyModel, tmp_path: Path
) -> None:
    folders = [tiny.write(tmp_path / "export"), tiny.write(tmp_path / "export-fp16", name="other")]
    record = run_benchmark(
        *folders, batches=(1, 4), workers=(1, 2), repetitions=10, min_time_s=0, progress=lambda _: None
    )
    rows = record["results"]
    assert [(row["model"], row["batch"], row["workers"]) for row in rows] == [
        (model, batch, workers) for model in (0, 1) for batch in (1, 4) for workers in (1, 2)
    ]
    scenarios = ["single-stream", "offline", "multi-stream", "offline"] * 2
    assert [row["scenario"] for row in rows] == scenarios
    table = list(csv.DictReader(engine_text(record, "csv").splitlines()))
    assert [row["scenario"] for row in table] == scenarios
    assert [row["model"] for row in table] == ["tiny"] * 4 + ["other"] * 4
    assert float(table[2]["p50_ms"]) == rows[2]["latency_ms"]["p50"]
    for row in rows:
        assert row["parity_max_abs"] < 1e-5
        assert row["parity_top1_agreement"] == 1
        assert row["gflops"] > 0


def test_the_program_prints_a_table_or_the_record(engine: EngineBinaries, tiny_folder: Path) -> None:
    def benchmark(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(engine.benchmark), str(tiny_folder), "--repetitions", "1", "--min-time-s", "0"]
        return subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=60)

    title, head, row = benchmark().stdout.splitlines()[:3]
    assert title.startswith("tiny on ")
    assert len(head) == len(row)
    assert head.split()[:4] == ["scenario", "precision", "kernels", "threads"]
    assert row.split()[:4] == ["single-stream", "fp32", "ncnn", "1"]
    assert json.loads(benchmark("--json", "-").stdout)["models"][0]["precision"] == "fp32"
    assert benchmark("--kernels", "mkl").returncode == 2
    assert benchmark("--help").stdout.startswith("usage: benchmark_ncnn [flags] MODEL_DIR ...")
    assert "did you mean --threads" in benchmark("--thread", "2").stderr


def test_a_model_tuned_on_another_processor_warns(
    engine: EngineBinaries, tiny: TinyModel, tmp_path: Path
) -> None:
    folder = tiny.write(tmp_path / "model", tuning={"method": "measured", "processor": "Z80"})
    record = run_benchmark(folder, repetitions=1, min_time_s=0, progress=lambda _: None)
    (warning,) = record["context"]["warnings"]
    assert f"tiny (fp32) was tuned on Z80, but this is {processor_name()}: " in warning
    tiny.write(folder, tuning={"method": "measured", "processor": processor_name()})
    record = run_benchmark(folder, repetitions=1, min_time_s=0, progress=lambda _: None)
    assert record["context"]["warnings"] == []


def test_accuracy_and_parity_are_those_of_the_engine(
    engine: EngineBinaries, tiny: TinyModel, tiny_folder: Path
) -> None:
    images = np.random.default_rng(2).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    logits = np.array([tiny.logits(image) for image in images], np.float32)
    labels = logits.argmax(1)
    labels[:7] = (labels[:7] + 1) % 5
    logits[3, 2] += 0.25
    record = run_benchmark(tiny_folder, repetitions=1, min_time_s=0, progress=lambda _: None)
    add_accuracy(
        record, [tiny_folder], Split(images, labels), logits, kernels="auto", progress=lambda _: None
    )
    model, row = record["models"][0], record["results"][0]
    assert model["accuracy"] == {"images": 30, "correct": 23, "top1": pytest.approx(23 / 30)}
    assert model["parity"]["images"] == 30
    assert model["parity"]["max_abs"] == row["parity_max_abs"] == pytest.approx(0.25, abs=1e-4)
    assert row["accuracy_top1"] == model["accuracy"]["top1"]
    assert "accuracy in fp32: 0.7667 (23 of 30 images)" in engine_text(record, "table")
    head, rule, cells = engine_text(record, "md").splitlines()
    assert len(head) == len(rule) == len(cells)
    assert " 0.7667 |" in cells


def test_rejected_model_is_one_message(engine: EngineBinaries, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        run_benchmark(tmp_path, progress=lambda _: None)


def test_command_runs_from_anywhere(engine: EngineBinaries, tiny_folder: Path, tmp_path: Path) -> None:
    command = [str(ENGINE_DIR.parent / "deploy" / "benchmark_ncnn"), str(tiny_folder)]
    command += ["--repetitions", "5", "--min-time-s", "0"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("tiny on ")
    assert "single-stream" in answer.stdout


def test_newest_champion_is_the_newest_with_an_export(tmp_path: Path) -> None:
    for name in ("a-20260101-000000", "b-20260301-000000", "c-20260201-000000", "d-20260401-000000"):
        (tmp_path / name / "export").mkdir(parents=True)
        (tmp_path / name / "spec.yaml").touch()
        if not name.startswith("d"):
            (tmp_path / name / "export" / "model.json").write_text("{}")
    assert newest_champion([tmp_path / "none", tmp_path]) == tmp_path / "b-20260301-000000" / "export"
    with pytest.raises(UserError, match=r"platform\.sweep"):
        newest_champion([tmp_path / "none"])


def test_lists_of_numbers_are_parsed() -> None:
    assert parse_numbers("--threads", "1,2,1") == (1, 2)
    for text in ("", "0", "x", "1,,2"):
        with pytest.raises(UsageError, match="--threads takes whole numbers from 1 to 256"):
            parse_numbers("--threads", text)
