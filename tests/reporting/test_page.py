"""The HTML report: complete, self-contained, escaped, with a list of missing results."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from platform.common.atomic import read_json, write_json
from platform.common.errors import UserError
from platform.common.text_format import percent
from platform.reporting.page import render, write_report
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from tests.reporting.example_sweep import write_benchmark, write_example, write_int8
from tests.tracking.examples import epoch, trial

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects text and attributes."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def test_the_page_shows_what_was_copied_between_nodes(finished):
    results = read_results(finished)
    copied = {
        trial_id: [replace(record, moved_bytes=45_000_000) for record in records]
        for trial_id, records in results.epochs.items()
    }
    epochs = sum(map(len, copied.values()))
    text = Page(render(replace(results, epochs=copied))).text
    assert f"copied between nodes {epochs * 0.045:.3g} GB, for {len(copied)} trials" in text
    assert "copied between nodes" not in Page(render(results)).text


def test_a_single_objective_has_no_pareto_front(page):
    assert "Accuracy and cost" not in page.text


def test_the_page_shows_the_pareto_front(tmp_path):
    folder = write_example(tmp_path, objectives=["validation_accuracy", "parameters", "latency_ms"])
    page = Page(render(read_results(folder)))
    assert re.search(r"The Pareto front has \d+ trials of \d+ completed trials\.", page.text)
    assert "11,173,962" in page.text
    assert "with untrained weights" in page.text


@pytest.fixture(scope="module")
def html(finished):
    return render(read_results(finished))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_has_all_parts(page, finished):
    results = read_results(finished)
    champion = results.champion["trial_id"]
    for heading in (
        f"Configuration of the champion, {champion}",
        "Confirmation",
        "The search",
        "Leaderboard",
        "Learning curves",
        "Accuracy by setting",
        "Test accuracy per class",
        "Export and latency",
        "Failures",
        "Plan and time",
        "Provenance",
    ):
        assert heading in page.text
    for wanted in (
        "FloatingPointError",
        f"{finished.logs}/t009.log",
        "9.50e-06",
        "optimizer.weight_decay",
        "c79f2430aa",
        "python -m platform.sweep resnet18_cifar",
        "Most frequent errors, with the images of highest confidence",
        "Reliability: expected calibration error",
    ):
        assert wanted in page.text
    for absent in ("is incomplete", "QUICK SWEEP", "GENERATED", "unreliable"):
        assert absent not in page.text


def test_the_first_screen_answers_the_questions_of_its_reader(html, page, finished):
    results = read_results(finished)
    champion = results.champion["trial_id"]
    accuracy = percent(results.test["accuracy"])
    first, *_ = page.text.partition("Validation accuracy of the best candidates")
    for wanted in (
        f"The best recipe of 24 trials, {champion}, classifies {accuracy} of the test images of cifar10",
        " correctly and needs 12.10 ms per image on Example CPU @ 2.5GHz.",
        "; the sweep took 2 h 22 min (planned: about 2.3 h)",
        ", cost 2.02 (planned: 2.00).",
        f"Best configuration {champion}, ",
        f"It is the best of {results.selection['recipes']} with ",
        f"Certainty {champion} is the best of {results.selection['recipes']} recipes with ",
        " points in expectation, at most ",
        "; a new run of this recipe is expected at ",
        "Confirmation 9 runs of 3 candidates; all 9 runs are used.",
        f"Test accuracy {accuracy} (10,000 images, 95 % interval ± 0.51; ",
        "test split read once by the sweep, once by the export).",
        "Latency 12.10 ms per image on Example CPU @ 2.5GHz (median; p99 15.73 ms), 2 threads.",
        "Data and budget resnet18_cifar on cifar10; all training images, 5,000 of the training split held",
        "30 epochs per run at most; 24 trials (10 stopped early)",
        "--set base.epochs=30 trials=24.",
    ):
        assert wanted in first


def test_every_reading_of_the_test_split_is_listed(tmp_path):
    folder = write_example(tmp_path, trials=5)
    write_int8(folder)
    write_json(folder.test, {**read_json(folder.test, remedy=""), "images": 2000, "split_images": 10_000})
    later = {"split_sha256": "9f" * 32, "opened_utc": "2026-03-02T08:00:00+00:00", "run": "final"}
    (folder.path / "test_evaluations.jsonl").write_text(json.dumps(later) + "\n")
    text = Page(render(read_results(folder))).text
    assert "2,000 of 10,000 images" in text
    assert "test split read once by the sweep, once by the evaluate command, 2 times by the export" in text
    for wanted in (
        "sweep accuracy of final 2,000 2026-03-01T18:20:11+00:00",
        "evaluate command accuracy of final 10,000 2026-03-02T08:00:00+00:00",
        "export agreement of fp32 with PyTorch 256",
        "export accuracy of int8 10,000",
    ):
        assert wanted in text
    assert "agreement of int8" not in text, "compared on validation images"


def test_the_plan_is_in_words(tmp_path):
    folder = write_example(tmp_path, trials=5)
    plan = json.loads(folder.plan.read_text())
    choice = {"name": "trials", "value": 6, "reason": "six trials fit"}
    write_json(folder.plan, {**plan, "within": {"budget_s": 300.0, "choices": [choice]}})
    text = Page(render(read_results(folder))).text
    assert "time budget 5 min 00 s" in text
    assert "chosen for the budget: trials 6: six trials fit" in text
    assert "device cpu (no GPU in the cluster)" in text
    assert "search 5 30" in text
    for raw in ("True", "False", "None,", "{'", "dict("):
        assert raw not in text


def test_the_page_needs_no_network(html, page):
    assert not {"link", "iframe", "object"} & set(page.tags)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "default-src 'none'" in html
    assert html.count('id="plotly"') == 1


def test_five_hundred_trials_stay_below_six_megabytes(tmp_path):
    html = render(read_results(write_example(tmp_path, trials=500)))
    assert len(html.encode()) < 6_000_000


def test_the_page_supports_dark_mode_and_print(html):
    assert "screen and (prefers-color-scheme: dark)" in html
    assert "@media print" in html
    assert "print-color-adjust: exact" in html


def test_charts_have_descriptions_for_screen_readers(page):
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len(labels) >= 15
    assert all(labels)


def test_the_leaderboard_has_completed_trials_first(finished):
    ranked = read_results(finished).leaderboard()
    completed = [row.completed for row in ranked]
    assert completed == sorted(completed, reverse=True)
    accuracies = [row.validation_accuracy for row in ranked if row.completed]
    assert accuracies == sorted(accuracies, reverse=True)
    assert "t009" not in [row.trial_id for row in ranked]


def test_external_text_is_escaped(tmp_path):
    folder = SweepFolder(tmp_path / "evil-20260301-120000")
    folder.path.mkdir()
    evil = "</td><script>alert(1)</script>"
    writer = TableWriter(folder)
    for number in (0, 1):
        bad = trial(number, params={"name": f"{evil}{number}", evil: number})
        writer.epoch_finished(bad, epoch(1))
        writer.trial_ended(bad, TrialStatus.FINISHED)
    failed = trial(2)
    writer.trial_ended(failed, TrialStatus.FAILED, error=evil)
    writer.flush()
    write_json(
        folder.plan, {"about": evil, "space": evil, "data": {"label": evil}, "provenance": {"cpu": evil}}
    )
    write_json(folder.champion, {"trial_id": evil, "params": {}, "config": {evil: evil}})
    write_json(folder.selection, {"candidates": [], "champion": evil, "verdict": evil})
    html = write_report(folder).read_text(encoding="utf-8")
    assert evil not in html
    assert evil in Page(html).text


def test_a_champion_equal_to_the_base_is_reported(tmp_path):
    folder = write_example(tmp_path, trials=5)
    results = read_results(folder)
    from platform.space.space_files import load_spec

    base = load_spec(folder.path).base.model_dump(mode="json")
    # The seed of a run is not part of the comparison.
    write_json(folder.champion, {**results.champion, "config": {**base, "seed": 77}})
    assert "The champion is the base configuration." in Page(render(read_results(folder))).text


ALL = ("plan", "selection", "champion", "test", "export", "benchmark", "registered")


@pytest.mark.parametrize("without", [ALL[start:] for start in range(len(ALL))] + [("plan",), ("export",)])
def test_the_report_of_an_incomplete_sweep_lists_the_missing_results(finished, tmp_path, without):
    folder = SweepFolder(tmp_path / finished.sweep_id)
    shutil.copytree(finished.path, folder.path)
    folder.set_state("interrupted")
    files = {
        "plan": [folder.plan, folder.spec],
        "selection": [folder.selection],
        "champion": [folder.champion],
        "test": [folder.test],
        "export": [folder.export / "model.json"],
        "benchmark": [folder.benchmark],
        "registered": [folder.path / "registered.json"],
    }
    for name in without:
        for path in files[name]:
            path.unlink()
    page = Page(render(read_results(folder)))
    expected = {
        "selection": "confirmation over several seeds: the ranking may be noise",
        "champion": "champion: the best configuration has not been chosen",
        "test": "test accuracy: the test split has not been evaluated",
        "export": "export to ncnn and its parity with PyTorch",
        "benchmark": "latency on this machine",
        "registered": "registration in MLflow",
    }
    for name, text in expected.items():
        assert (text in page.text) == (name in without)
    if set(without) & set(expected):
        assert f"python -m platform.sweep --resume {finished.sweep_id}" in page.text


def test_an_empty_folder(tmp_path):
    folder = SweepFolder(tmp_path / "s-20260301-120000")
    folder.path.mkdir()
    page = Page(render(read_results(folder)))
    assert "No trial has an accuracy yet." in page.text
    assert "no trial has finished an epoch" in page.text
    assert "figure" not in page.tags


def test_a_running_sweep_has_no_resume_command(tmp_path):
    folder = write_example(tmp_path, trials=5, without=ALL[1:])
    folder.set_state("running")
    page = Page(render(read_results(folder)))
    assert "still running" in page.text
    assert "--resume" not in page.text


def test_one_trial_of_one_epoch_is_enough_for_every_chart(tmp_path):
    folder = SweepFolder(tmp_path / "s-20260301-120000")
    folder.path.mkdir()
    writer = TableWriter(folder)
    writer.epoch_finished(trial(0), epoch(1, train_loss=float("nan"), accuracy=0.1))
    writer.trial_ended(trial(0), TrialStatus.FINISHED)
    writer.flush()
    page = Page(render(read_results(folder)))
    assert "10.00 %" in page.text
    assert "figure" in page.tags


def test_quick_sweeps_and_generated_data_have_warnings(tmp_path):
    folder = write_example(tmp_path, trials=5, quick=True, generated=True)
    text = Page(render(read_results(folder))).text
    assert "QUICK SWEEP" in text
    assert "GENERATED DATA" in text


def test_a_benchmark_on_a_busy_machine_has_a_warning(tmp_path):
    folder = write_example(tmp_path, trials=5)
    write_benchmark(folder, trustworthy=False)
    assert "The machine was busy (tasks waited for a processor)" in Page(render(read_results(folder))).text


def test_lower_precisions_are_compared_with_fp32(tmp_path):
    folder = write_example(tmp_path, trials=5)
    write_int8(folder)
    text = Page(render(read_results(folder))).text
    for wanted in (
        "int8, tuned 256 cifar10, validation 2.10e-01 11.2 2.00e-02 99.60 %",
        "99.90 % on 4,488 (fp32: 100.00 %) 93.91 % on 10,000 (fp32: 94.12 %) 2.400 11.2",
        "this model was also trained on them",
        "bf16 costs 1.20 points",
        "2.38 ms per image on Example CPU @ 2.5GHz (median; p99 3.09 ms), 1 thread, int8 (test accuracy",
    ):
        assert wanted in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("selection.json", '{"candidates": ['),
        ("champion.json", "{}"),
        ("test.json", '{"accuracy": 0.5}'),
        ("benchmark.json", '{"results": []}'),
        ("test_evaluations.jsonl", '{"run": '),
    ],
)
def test_a_damaged_file_is_a_user_error(tmp_path, name, content):
    folder = SweepFolder(tmp_path / "s-20260301-120000")
    folder.path.mkdir()
    (folder.path / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} is damaged: .*; remove it to continue without it"):
        write_report(folder)
    assert not folder.report.exists()


def test_a_new_report_replaces_an_older_one(tmp_path):
    folder = SweepFolder(tmp_path / "s-20260301-120000")
    folder.path.mkdir()
    folder.report.write_text("old")
    assert write_report(folder) == folder.report
    assert "old" not in folder.report.read_text(encoding="utf-8")[:10]
    assert [path.name for path in folder.path.iterdir()] == ["report.html"]
