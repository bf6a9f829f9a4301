"""The synthetic sweep: its trials are complete, resumed without more events, and its figures add up."""

from __future__ import annotations

from benchmarks import driver_scaling, record


def test_figures_of_a_small_search() -> None:
    found = driver_scaling.measure(trials=4, epochs=3)
    assert found["events"] == 4 * 3, "no trial is stopped, and the resume adds no event"
    assert found["slots"] == 2
    assert len(found["turn_s"]) == 2, "two trials wait for a slot"
    seconds = found["component_s"]
    assert {"journal", "ask", "study", "scheduler", "tables", "tables*", "MLflow", "MLflow*"} <= set(seconds)
    assert 0 < sum(seconds[name] for name in ("journal", "ask", "study", "tables")) < found["driver_s"]
    assert found["driver_s"] < found["wall_s"]
    text = driver_scaling.table(record.context(), [found])
    assert f"{found['events'] / found['wall_s']:9.0f}" in text


def test_accuracies_rise_from_event_to_event() -> None:
    by_event = [driver_scaling.epoch_record(3, 50, rise=event).validation_accuracy for event in range(5)]
    assert by_event == sorted(set(by_event))
