"""Comparison of two benchmark records: verdicts, intervals, warnings, rejected records."""

import json

import numpy as np
import pytest

from deploy.compare_records import bootstrap_ratio, comparison, comparison_text
from platform.common.errors import UserError


def noisy(median_ms: float, seed: int, count: int = 400) -> np.ndarray:
    """Repetitions with a spread of 5 % and an intermittent neighbor that slows down blocks of 20."""
    rng = np.random.default_rng(seed)
    neighbor = np.repeat(rng.random(count // 20) < 0.2, 20) * 0.1
    return median_ms * (1 + 0.05 * rng.standard_normal(count) + neighbor)


def record(path, *, rows, name="net", macs=1e6, cpu="one", trustworthy=True, sha256="a"):
    content = {
        "schema_version": 2,
        "context": {"cpu": cpu, "noise": {"trustworthy": trustworthy, "reason": "neighbors"}},
        "models": [{"name": name, "macs": macs, "sha256": sha256}],
        "results": [
            {
                "scenario": "single-stream",
                "precision": precision,
                "threads": threads,
                "batch": 1,
                "workers": 1,
                "samples_ms": samples.tolist(),
            }
            for (precision, threads), samples in rows.items()
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_verdict_of_each_common_row(tmp_path):
    base = {
        ("fp32", 1): noisy(4, 0),
        ("int8", 1): noisy(2, 1),
        ("bf16", 1): noisy(3, 2),
        ("fp32", 2): noisy(3, 3),
    }
    new = {
        ("fp32", 1): noisy(3.2, 4),
        ("int8", 1): noisy(2.4, 5),
        ("bf16", 1): noisy(3.005, 6),
        ("int8", 2): noisy(1, 7),
    }
    found = comparison(record(tmp_path / "a", rows=base), record(tmp_path / "b", rows=new))
    verdicts = {row["what"]: row["verdict"] for row in found["rows"]}
    assert verdicts == {
        "engine fp32 single-stream": "faster",
        "engine int8 single-stream": "slower",
        "engine bf16 single-stream": "not separated",
    }
    assert found["left_out"] == ["engine fp32 single-stream 2 threads", "engine int8 single-stream 2 threads"]
    assert found["warnings"] == []
    text = comparison_text(found)
    assert "not separated" in text
    assert "measure both in one run" in text


def test_interval_has_its_nominal_coverage():
    covered = 0
    for seed in range(60):
        _, (low, high) = bootstrap_ratio(noisy(1, 2 * seed), noisy(1, 2 * seed + 1))
        covered += low <= 1 <= high
    # Repetitions within a block are correlated: a plain bootstrap covers it about 40 times.
    assert covered >= 51


def test_differences_of_the_context_are_warnings(tmp_path):
    rows = {("fp32", 1): noisy(1, 0)}
    a = record(tmp_path / "a", rows=rows)
    b = record(tmp_path / "b", rows=rows, cpu="two", trustworthy=False, sha256="b")
    warnings = comparison(a, b)["warnings"]
    assert any("processors differ: one and two" in warning for warning in warnings)
    assert any("weights differ" in warning for warning in warnings)
    assert any("busy while B was measured (neighbors)" in warning for warning in warnings)


def test_incomparable_records_are_rejected(tmp_path):
    a = record(tmp_path / "a", rows={("fp32", 1): noisy(1, 0)})
    with pytest.raises(UserError, match=r"net \(1\.0 M .* wide \(2\.0 M .*only records of one network"):
        comparison(a, record(tmp_path / "b", rows={("fp32", 1): noisy(1, 0)}, name="wide", macs=2e6))
    with pytest.raises(UserError, match="no configuration is in both"):
        comparison(a, record(tmp_path / "b", rows={("int8", 1): noisy(1, 0)}))
    (tmp_path / "b").write_text('{"results": []}')
    with pytest.raises(UserError, match="is not a record of deploy/benchmark_ncnn"):
        comparison(a, tmp_path / "b")
    with pytest.raises(UserError, match="none: no such file"):
        comparison(a, tmp_path / "none")
