"""The tables of the plan on the console."""

import io
import re

import pytest
from rich.console import Console

from platform.common.text_format import GENERATED, QUICK, percent
from platform.console.plan_table import plan_table, remaining_table
from platform.models.config import ModelConfig
from platform.space.short_runs import PlannedChoice
from platform.space.spec import SweepSpec
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import Annealing, RunConfig, Sgd
from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget
from tests.tracking.examples import epoch, trial


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def plan():
    spec = SweepSpec(
        name="small",
        about="Which rate?",
        base=RunConfig(
            model=ModelConfig(name="resnet32_cifar"),
            epochs=50,
            optimizer=Sgd(name="sgd", lr=0.1),
            schedule=Annealing(name="cosine"),
        ),
        search={
            "batch_size": {"choice": [128, 256]},
            "optimizer": [
                {"name": "sgd", "lr": {"log_uniform": [0.01, 0.5]}},
                {"name": "adam", "lr": {"log_uniform": [0.0001, 0.01]}},
            ],
        },
        trials=12,
    )
    device = {"device": "cpu", "device_reason": "no GPU in the cluster"}
    return make_plan(spec, [{"CPU": 2, "GPU": 0}]).model_copy(update=device)


def shown(renderable, width=160):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable, crop=False)
    return console.file.getvalue()


def cells(text, first, last):
    """Return the cells of the rows from the row named `first` to the row named `last`."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.split("  ")[0].strip() == first)
    end = next(index for index in range(start, len(lines)) if lines[index].split("  ")[0].strip() == last)
    return [re.split(r"\s{2,}", line.strip()) for line in lines[start : end + 1]]


def test_the_plan_has_the_settings_the_stages_and_the_resources(plan, tmp_path):
    text = shown(plan_table(plan, data="cifar10", folder=tmp_path, tracking_uri="sqlite:////x.db"))
    assert text.splitlines()[0].rstrip() == "small  Which rate?"
    assert cells(text, "setting", "optimizer.adam.lr") == [
        ["setting", "kind", "values", "only if"],
        ["batch_size", "choice", "128, 256"],
        ["optimizer", "alternatives", "sgd, adam"],
        ["optimizer.sgd.lr", "log uniform", "0.01 to 0.5", "optimizer = sgd"],
        ["optimizer.adam.lr", "log uniform", "0.0001 to 0.01", "optimizer = adam"],
    ]
    search_epochs = f"50 (mean {plan.search.expected_epochs / 12:.1f})"
    assert cells(text, "stage", "final") == [
        ["stage", "runs", "epochs", "at once", "each run"],
        [
            "search",
            "12",
            search_epochs,
            "2",
            "inproc, 1 worker with 1 CPU",
        ],
        ["confirm", "16", "50 (mean 28.1)", "2", "inproc, 1 worker with 1 CPU"],
        ["final", "1", "50", "1", "ddp, 1 worker with 2 CPU"],
    ]
    saved = f"expected to save {percent(plan.saved_share, 0)} of the search"
    assert cells(text, "sampler", "MLflow") == [
        ["sampler", "tpe"],
        ["scheduler", f"asha, may stop trials after epoch 5, 15, 45, {saved}"],
        ["early stopping", plan.stopping_risk],
        ["epochs", "at most 1,450 in all stages"],
        ["search", f"inproc ({plan.search.backend_reason})"],
        ["confirm", f"4 candidates, 2 to 16 runs, inproc ({plan.confirm.backend_reason})"],
        ["final", f"ddp ({plan.final.backend_reason})"],
        ["data", "cifar10"],
        ["cluster", "2 CPU"],
        ["device", "cpu (no GPU in the cluster)"],
        ["folder", str(tmp_path)],
        ["MLflow", "sqlite:////x.db"],
    ]


def test_the_stages_fit_eighty_columns(plan):
    text = shown(plan_table(plan), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert [row[-1] for row in cells(text, "search", "final")] == [
        "inproc, 1 worker with 1 CPU",
        "inproc, 1 worker with 1 CPU",
        "ddp, 1 worker with 2 CPU",
    ]


def test_a_scheduler_without_savings_shows_its_rungs_only(plan):
    text = shown(plan_table(plan.model_copy(update={"rungs": (5, 10), "saved_share": 0.0})))
    assert cells(text, "scheduler", "scheduler") == [["scheduler", "asha, may stop trials after epoch 5, 10"]]


def test_several_objectives_are_listed(plan):
    assert "objectives" not in shown(plan_table(plan))
    several = plan.model_copy(update={"objectives": ("validation_accuracy", "latency_ms")})
    assert cells(shown(plan_table(several)), "objectives", "objectives") == [
        [
            "objectives",
            "maximize validation accuracy, minimize latency ms; the champion is chosen by accuracy",
        ]
    ]


def test_warnings_and_notes(plan):
    text = shown(plan_table(plan))
    assert "QUICK" not in text
    assert "GENERATED" not in text
    quick = plan.model_copy(update={"quick": True, "notes": ("scheduler asha stops nothing",)})
    lines = [line.rstrip() for line in shown(plan_table(quick, generated=True)).splitlines()]
    assert lines[1:3] == [QUICK, GENERATED]
    assert lines[-2:] == ["note: scheduler asha stops nothing", ""]


def test_brackets_in_a_space_are_printed(plan):
    text = shown(plan_table(plan.model_copy(update={"about": "[bold]odd[/bold]"})))
    assert text.startswith("small  [bold]odd[/bold]")


def test_the_niceness_is_shown_if_it_is_not_zero(plan, monkeypatch):
    assert "niceness" not in shown(plan_table(plan))
    monkeypatch.setenv("RAY_worker_niceness", "15")
    text = shown(plan_table(plan))
    assert cells(text, "priority", "priority") == [
        ["priority", "workers run with niceness 15 (RAY_worker_niceness)"]
    ]


def test_the_estimate_of_a_busy_machine_has_that_of_an_idle_one(plan):
    images = ImageCounts(train=45_000, validation=5_000, test=10_000)
    speed = Speed(train_images_per_s=500.0, evaluation_images_per_s=1500.0)
    quiet = plan.model_copy(update={"estimate": estimate_sweep(plan, speed, images)})
    [[_, time]] = cells(shown(plan_table(quiet)), "time", "time")
    assert "load" not in shown(plan_table(quiet))
    busy = speed.model_copy(update={"busy": True, "cpu_share": 0.5, "train_images_per_s": 250.0})
    busy = busy.model_copy(update={"evaluation_images_per_s": 750.0, "load_per_core": 3.0})
    loaded = plan.model_copy(update={"estimate": estimate_sweep(plan, busy, images)})
    [[_, both]] = cells(shown(plan_table(loaded)), "time", "time")
    assert both.endswith(f" on this busy machine, {time} on an idle one")
    assert cells(shown(plan_table(loaded)), "load", "load") == [
        ["load", "load average 3.0 per core: other processes slow this sweep down"]
    ]


def test_the_choices_of_a_time_budget_are_a_table(plan):
    choice = PlannedChoice(name="trials", value="4", reason="a run takes 40 s")
    within = TimeBudget(budget_s=300.0, used_before_s=2.0, choices=(choice,), full_digest="")
    text = shown(plan_table(plan.model_copy(update={"within": within})))
    assert cells(text, "within 5 min 00 s", "trials") == [
        ["within 5 min 00 s", "value", "reason"],
        ["trials", "4", "a run takes 40 s"],
    ]


def test_a_resumed_sweep_shows_what_is_left(plan, tmp_path):
    folder = SweepFolder(tmp_path / f"small-20260101-120000-{'long' * 30}")
    folder.path.mkdir()
    writer = TableWriter(folder)
    for number in range(5):
        writer.epoch_finished(trial(number), epoch(3))
        writer.trial_ended(trial(number), TrialStatus.FINISHED)
    writer.trial_started(trial(5))
    writer.flush()
    images = ImageCounts(train=45_000, validation=5_000, test=10_000)
    speed = Speed(train_images_per_s=500.0, evaluation_images_per_s=1500.0)
    plan = plan.model_copy(update={"estimate": estimate_sweep(plan, speed, images)})
    text = shown(remaining_table(plan, folder), width=80)
    assert cells(text, "stage", "final") == [
        ["stage", "runs", "done", "left"],
        ["search", "12", "5", "7"],
        ["confirm", "16", "0", "16"],
        ["final", "1", "0", "1"],
    ]
    [[_, left]] = cells(text, "time", "time")
    assert left.endswith(" left")
    assert "setting" not in text
    assert str(folder.path) in text, "a path is not wrapped"
