"""The plan on the console says what will be run, and warns before it is."""

import io

import pytest
from rich.console import Console

from platform.console.plan_table import plan_table
from platform.models.config import ModelConfig
from platform.space.spec import SweepSpec
from platform.training.config import Cosine, RunConfig, Sgd
from platform.tuning.planning.plan import make_plan


@pytest.fixture
def plan():
    spec = SweepSpec(
        name="small",
        about="Which rate?",
        base=RunConfig(
            model=ModelConfig(name="resnet32_cifar"),
            epochs=50,
            optimizer=Sgd(name="sgd", lr=0.1),
            schedule=Cosine(name="cosine"),
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
    return make_plan(spec, {"CPU": 2, "GPU": 0}).model_copy(update=device)


def shown(renderable, width=160):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_space_the_stages_and_the_place(plan, tmp_path):
    text = shown(
        plan_table(plan, data="cifar10", folder=tmp_path, tracking_uri="sqlite:////x.db", estimate_s=1800)
    )
    for wanted in (
        "Which rate?",
        "log uniform",
        "optimizer = adam",
        "3 candidates x 3 seeds, ddp: two worker slots",
        "may stop trials after epoch 5, 15, 45",
        "cpu (no GPU in the cluster)",
        "about 30 min",
        "cifar10",
        str(tmp_path),
        "sqlite:////x.db",
    ):
        assert wanted in text
    assert stage_row(text, "search").startswith("12 ")
    assert "QUICK" not in text
    assert "GENERATED" not in text


def stage_row(text, name):
    """Return what the table of stages says of one: it stands before the facts."""
    found = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return found[0].removeprefix(name).strip()


def test_eighty_columns_cut_no_word_of_the_stages(plan):
    text = shown(plan_table(plan), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert stage_row(text, "search").split()[-6:] == ["inproc,", "1", "worker", "with", "1", "CPU"]
    assert stage_row(text, "confirm").endswith("1  ddp, 2 workers with 1 CPU each")
    assert stage_row(text, "final").endswith("1  ddp, 2 workers with 1 CPU each")


def test_rungs_and_what_stopping_saves_are_told(plan):
    assert f"expected to save {plan.saved_share:.0%} of the search" in shown(plan_table(plan))
    text = shown(plan_table(plan.model_copy(update={"rungs": (5, 10), "saved_share": 0.0})))
    assert "asha, may stop trials after epoch 5, 10" in text
    assert "expected to save" not in text


def test_several_objectives_are_named(plan):
    assert "objectives" not in shown(plan_table(plan))
    several = plan.model_copy(update={"objectives": ("validation_accuracy", "latency_ms")})
    assert "highest validation accuracy, lowest latency ms; the champion by accuracy" in shown(
        plan_table(several)
    )


def test_what_means_nothing_is_said_loudly(plan):
    quick = plan.model_copy(update={"quick": True, "notes": ("scheduler asha stops nothing",)})
    text = shown(plan_table(quick, generated=True))
    assert "QUICK SWEEP" in text
    assert "GENERATED PICTURES" in text
    assert "note: scheduler asha stops nothing" in text


def test_brackets_in_a_space_are_text(plan):
    text = shown(plan_table(plan.model_copy(update={"about": "[bold]odd[/bold]"})))
    assert "[bold]odd[/bold]" in text
