"""The plan on the console says what will be run, and warns before it is."""

import io

import pytest
from rich.console import Console

from platform.console.plan_table import plan_table
from platform.models.config import ModelConfig
from platform.training.config import Cosine, RunConfig, Sgd
from platform.tuning.plan import make_plan
from platform.tuning.spec import SweepSpec


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
    return make_plan(spec, {"CPU": 2, "GPU": 0}, device="cpu", device_reason="no GPU in the cluster")


def shown(renderable):
    console = Console(file=io.StringIO(), width=160)
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
        "confirm 3 candidates x 3 seeds",
        "may stop trials after epoch 5, 15, 45",
        "cpu (no GPU in the cluster)",
        "about 30 min",
        "cifar10",
        str(tmp_path),
        "sqlite:////x.db",
    ):
        assert wanted in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["search"][1] == "12"
    assert "QUICK" not in text
    assert "GENERATED" not in text


def test_what_means_nothing_is_said_loudly(plan):
    quick = plan.model_copy(update={"quick": True, "notes": ("scheduler asha stops nothing",)})
    text = shown(plan_table(quick, generated=True))
    assert "QUICK SWEEP" in text
    assert "GENERATED PICTURES" in text
    assert "note: scheduler asha stops nothing" in text


def test_brackets_in_a_space_are_text(plan):
    text = shown(plan_table(plan.model_copy(update={"about": "[bold]odd[/bold]"})))
    assert "[bold]odd[/bold]" in text
