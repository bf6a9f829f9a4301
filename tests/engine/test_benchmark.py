"""Latency records, their table, and which model is measured by default."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.engine import EngineBinaries, run_benchmark
from deploy.image_file import write_image_file
from deploy.latency import latency_table, newest_champion, parse_threads
from deploy.ncnn_source import ENGINE_DIR
from platform.errors import UsageError, UserError

from .conftest import TinyModel


def test_record_has_a_row_per_thread_count(engine: EngineBinaries, tiny_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "benchmark.json"
    record = run_benchmark(
        tiny_folder, threads=(1, 2), repetitions=20, min_time_s=0, json_path=kept, progress=lambda _: None
    )
    assert json.loads(kept.read_text()) == record
    assert record["schema_version"] == 1
    assert record["model"]["test_accuracy"] == 0.5
    assert [row["threads"] for row in record["results"]] == [1, 2]
    for row in record["results"]:
        latency = row["latency_ms"]
        assert len(row["samples_ms"]) == row["repetitions"] >= 20
        assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
        assert latency["p50"] == pytest.approx(np.median(row["samples_ms"]))
        assert row["peak_rss_mb"] > 1
    assert latency_table(record).count("\n") >= 3


def test_accuracy_is_counted_in_cpp(
    engine: EngineBinaries, tiny: TinyModel, tiny_folder: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(2).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    labels = np.array([int(np.argmax(tiny.logits(image))) for image in images])
    labels[:7] = (labels[:7] + 1) % 5
    write_image_file(tmp_path / "images", images, labels)
    record = run_benchmark(
        tiny_folder,
        repetitions=1,
        min_time_s=0,
        images=tmp_path / "images",
        progress=lambda _: None,
    )
    assert record["accuracy"] == {"images": 30, "correct": 23, "top1": pytest.approx(23 / 30)}


def test_refused_model_is_one_message(engine: EngineBinaries, tmp_path: Path) -> None:
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
    assert answer.stdout.startswith("tiny, fp32")


def test_newest_champion_is_the_newest_with_an_export(tmp_path: Path) -> None:
    for name in ("a-20260101-000000", "b-20260301-000000", "c-20260201-000000", "d-20260401-000000"):
        (tmp_path / name / "export").mkdir(parents=True)
        if not name.startswith("d"):
            (tmp_path / name / "export" / "model.json").write_text("{}")
    assert newest_champion([tmp_path / "none", tmp_path]) == tmp_path / "b-20260301-000000" / "export"
    with pytest.raises(UserError, match=r"platform\.sweep"):
        newest_champion([tmp_path / "none"])


def test_threads_are_read() -> None:
    assert parse_threads("1,2,1") == (1, 2)
    for text in ("", "0", "x", "1,,2"):
        with pytest.raises(UsageError, match="1 to 256"):
            parse_threads(text)
