"""Summarize the results of a sweep in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform.common.text_format import evaluation_text, percent, plural, settings_text
from platform.tracking.results import SweepResults


def summary_sentences(results: SweepResults) -> list[str]:
    """Return the best configuration, an early stop, the confirmation, the test accuracy and the latency.

    Results that do not exist yet are left out.
    """
    sentences = [
        _configuration(results),
        _early_stop(results),
        _confirmation(results),
        _test_accuracy(results),
        _latency(results),
    ]
    return [sentence for sentence in sentences if sentence]


def best_latency(benchmark: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the result with the lowest median latency at batch size 1 with one worker."""
    single = [
        entry
        for entry in benchmark.get("results", [])
        if entry.get("batch", 1) == 1 and entry.get("workers", 1) == 1
    ]
    return min(single, key=lambda entry: entry["latency_ms"]["p50"], default=None)


def device_name(benchmark: Mapping[str, Any]) -> str:
    """Return the name of the CPU that a benchmark ran on."""
    context = benchmark.get("context", {})
    return " ".join(str(context.get("cpu") or context.get("cpu_name") or "this device").split())


def _configuration(results: SweepResults) -> str:
    champion = results.champion
    if champion is not None:
        settings = settings_text(champion.get("params", {})) or "the base configuration"
        return f"Best configuration: {champion.get('trial_id', 'the champion')}, {settings}."
    ranked = results.leaderboard()
    if ranked:
        best = ranked[0]
        return (
            f"Best trial so far: {best.trial_id}, validation accuracy {percent(best.validation_accuracy)} "
            f"after {plural(best.epochs_done, 'epoch')}, not yet confirmed over several seeds: "
            f"{settings_text(best.params)}."
        )
    return "No trial has an accuracy yet."


def _early_stop(results: SweepResults) -> str:
    reason = (results.selection or {}).get("search_stopped")
    return f"The search stopped before its last trial ({reason})." if reason else ""


def _confirmation(results: SweepResults) -> str:
    entry = results.champion_candidate()
    if entry is None:
        return ""
    runs = int(entry["n"])
    verdict = str((results.selection or {}).get("verdict", "")).strip().replace("+-", "±")
    if verdict:
        # The verdict contains the mean and the spread.
        return f"Retrained with {plural(runs, 'seed')}: {verdict}"
    text = f"Validation accuracy over {plural(runs, 'seed')}: {percent(entry['mean'])}"
    if runs > 1 and entry.get("std") is not None:
        text += f" ± {100 * entry['std']:.2f} (standard deviation)"
    return f"{text}."


def _test_accuracy(results: SweepResults) -> str:
    if results.test is None:
        return ""
    return f"Test accuracy: {percent(results.test['accuracy'])} ({evaluation_text(results.test)})."


def _latency(results: SweepResults) -> str:
    fastest = best_latency(results.benchmark) if results.benchmark else None
    if fastest is None or results.benchmark is None:
        return ""
    latency = fastest["latency_ms"]
    return (
        f"Latency on {device_name(results.benchmark)}: {latency['p50']:.2f} ms per image (median; "
        f"p99 {latency['p99']:.2f} ms), {plural(int(fastest['threads']), 'thread')}"
        f"{_precision(results, fastest)}.{_noise_warning(results.benchmark)}"
    )


def _precision(results: SweepResults, fastest: Mapping[str, Any]) -> str:
    """Return the precision of a result and its change of accuracy; empty if there is only fp32."""
    precision = fastest.get("precision")
    shipped = [entry for entry in results.lower_precisions if entry.get("precision") == precision]
    if not shipped:
        return ", fp32" if precision == "fp32" and results.lower_precisions else ""
    test = (shipped[0].get("accuracy") or {}).get("test") or {}
    if not test:
        return f", {precision}"
    change = 100 * (test["top1"] - test["fp32_top1"])
    return f", {precision} (test accuracy {change:+.2f} points compared with fp32)"


def _noise_warning(benchmark: Mapping[str, Any]) -> str:
    noise = benchmark.get("context", {}).get("noise") or {}
    if noise.get("trustworthy", True):
        return ""
    reason = noise.get("reason", "no reason given")
    return f" The machine was busy ({reason}), so the figures are unreliable: repeat the benchmark."
