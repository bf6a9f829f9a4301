"""Population based training as it runs: a bad trial is seen to take over a good one, also through a death."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from platform.data.dataset import DatasetInfo
from platform.errors import UsageError
from platform.models.trained import load_trained_model
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tracking.folder import SweepFolder
from platform.training.checkpoint import read_checkpoint
from platform.tuning.cluster_session import Session
from platform.tuning.history import trial_pasts
from platform.tuning.journal import read_journal
from platform.tuning.population import decide
from platform.tuning.reaper import left_over
from platform.tuning.stops import Stops
from platform.tuning.trial import TrialOutcome
from platform.tuning.trial_model import find_task, refuse_takeover, trial_model
from tests.tuning_ray.examples import (
    TWO_WORKERS,
    Diary,
    drive_with_slow_answers,
    search,
    table,
    tiny_spec,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(1800)]

GOOD, HOPELESS = 0.03, 1e-9
BASE = tiny_spec().base.model_dump()
SPEC = tiny_spec(
    base={**BASE, "data": {**BASE["data"], "train_limit": 128}},
    search={"optimizer.lr": {"log_uniform": [1e-9, 0.1]}},
    start_from=[{"optimizer.lr": GOOD}, {"optimizer.lr": HOPELESS}],
    trials=2,
    scheduler={"name": "pbt", "every_epochs": 2, "quantile": 0.5, "resample_probability": 0},
)


class Witness(Diary):
    """Looks at both checkpoints at the moment of the exchange."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.notes: dict[str, str] = {}
        self.same_weights: list[bool] = []

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        self.notes[trial.trial_id] = note
        heir, source = (
            read_checkpoint(self.folder / "checkpoints" / name)["state"]["network"]
            for name in ("t001", "t000")
        )
        self.same_weights.append(all(torch.equal(heir[name], source[name]) for name in source))
        shutil.copytree(self.folder / "checkpoints", self.folder.parent / "at-the-exchange")


@pytest.fixture(scope="module", autouse=True)
def the_first_is_better() -> Iterator[None]:
    """So short a training leaves the validation accuracy at chance: what is decided must not hang on it."""
    with pytest.MonkeyPatch.context() as patch:

        def decided(*args: Any, accuracies: dict[str, float], **more: Any) -> Any:
            assert set(accuracies) == {"t000", "t001"}
            return decide(*args, accuracies={"t000": 0.9, "t001": 0.1}, **more)

        patch.setattr("platform.tuning.population.decide", decided)
        yield


@pytest.fixture(scope="module")
def exchanged(
    ray_session: Session, info: DatasetInfo, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Witness, list[TrialOutcome]]:
    folder = tmp_path_factory.mktemp("population") / "tiny-20260101-000000"
    witness = Witness(folder)
    return folder, witness, search(SPEC, folder, info, observer=witness)


def test_a_bad_trial_goes_on_from_the_good_ones_weights(
    exchanged: tuple[Path, Witness, list[TrialOutcome]],
) -> None:
    folder, witness, (good, bad) = exchanged
    [exchange] = [event for event in read_journal(folder / "journal.jsonl") if event.kind == "exchange"]
    [takeover] = exchange.takeovers
    assert (takeover.trial_id, takeover.source, takeover.epoch) == ("t001", "t000", 2)
    rate = takeover.params["optimizer.lr"]
    assert rate in (pytest.approx(GOOD * 1.2), pytest.approx(GOOD / 1.2))
    assert witness.same_weights == [True]
    assert witness.notes["t001"].startswith("after epoch 2 it went on from t000: optimizer.lr 1e-09 -> ")

    assert [record.lr for record in bad.records] == pytest.approx([HOPELESS, HOPELESS, rate])
    assert bad.records[2].train_loss < bad.records[1].train_loss
    assert bad.status is good.status is TrialStatus.FINISHED
    assert load_trained_model(bad.model_path).metrics["validation_accuracy"] == pytest.approx(
        bad.records[2].validation_accuracy
    )


def test_the_table_keeps_what_the_trial_began_with(
    exchanged: tuple[Path, Witness, list[TrialOutcome]],
) -> None:
    folder, witness, (good, bad) = exchanged
    assert bad.info.params == {"optimizer.lr": HOPELESS}
    assert bad.info.config.optimizer.lr == HOPELESS
    assert bad.params_at_end["optimizer.lr"] > 0.02
    assert good.params_at_end == good.info.params
    pasts = {past.trial.trial_id: past for past in trial_pasts(read_journal(folder / "journal.jsonl"))}
    assert pasts["t001"].note == witness.notes["t001"]
    assert (pasts["t000"].note, dict(pasts["t001"].trial.params)) == (None, {"optimizer.lr": HOPELESS})
    assert witness.lines.count("t001 started") == 1, "a turn is no new start"
    assert left_over() == []


def test_its_model_is_found_and_its_run_is_not_repeated(
    exchanged: tuple[Path, Witness, list[TrialOutcome]],
) -> None:
    folder, _, (_, bad) = exchanged
    task = find_task(SweepFolder(folder), "t001")
    assert task.current_run.optimizer.lr == bad.records[2].lr
    with trial_model(SweepFolder(folder), task) as model:
        assert model == bad.model_path
    with pytest.raises(UsageError, match="t001 went on from another trial's weights"):
        refuse_takeover(SweepFolder(folder), task)


@pytest.mark.parametrize("moment", ["before the exchange", "after the exchange"])
def test_a_population_that_died_resumes_exactly(
    exchanged: tuple[Path, Witness, list[TrialOutcome]], folder: Path, info: DatasetInfo, moment: str
) -> None:
    whole, _, outcomes = exchanged
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    [cut] = [number for number, line in enumerate(lines) if b'"exchange"' in line]
    kept = cut if moment == "before the exchange" else cut + 1
    # The checkpoints of an exchange lie in their places before the journal says so.
    shutil.copytree(whole.parent / "at-the-exchange", folder / "checkpoints")
    moved = b"".join(lines[:kept]).replace(str(whole).encode(), str(folder).encode())
    (folder / "journal.jsonl").write_bytes(moved)
    again = search(SPEC, folder, info)
    assert table(again) == table(outcomes)
    assert [outcome.params_at_end for outcome in again] == [outcome.params_at_end for outcome in outcomes]


def test_a_population_of_worker_groups_stops_between_two_epochs(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group runs ahead of Tune's answer: without an end of its own it would train on into the next turn."""
    monkeypatch.setattr("platform.tuning.ddp.drive_trial", drive_with_slow_answers)
    spec = SPEC.model_copy(update={"workers_per_trial": 2})
    witness = Witness(folder)
    good, bad = search(spec, folder, info, observer=witness, placement=TWO_WORKERS)
    assert witness.same_weights == [True]
    assert bad.info.params == {"optimizer.lr": HOPELESS}
    assert [record.lr for record in bad.records[:2]] == pytest.approx([HOPELESS, HOPELESS])
    assert bad.records[2].lr in (pytest.approx(GOOD * 1.2), pytest.approx(GOOD / 1.2))
    assert bad.status is good.status is TrialStatus.FINISHED
    for name in ("t000", "t001"):
        told = (folder / "logs" / f"{name}.log").read_text().splitlines()
        turns = [line.split()[1].rstrip(":") for line in told if line.startswith("epoch ")]
        assert turns == ["1/3", "2/3", "3/3"], "no epoch twice"
    assert left_over() == []


def test_a_search_that_is_over_waits_for_no_exchange(
    folder: Path, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is over in the second trial's first epoch, while the first waits; the second hears in its next."""
    epochs: list[str] = []
    monkeypatch.setattr(Stops, "epoch", lambda *args: epochs.append(args[1]))
    monkeypatch.setattr(Stops, "reached", lambda *_: "three epochs" if len(epochs) >= 3 else None)
    diary = Diary()
    waited, ran = search(SPEC, folder, info, observer=diary)
    assert (waited.status, len(waited.records)) == (TrialStatus.PRUNED, 2)
    assert (ran.status, len(ran.records)) == (TrialStatus.PRUNED, 2)
    assert epochs == ["t000", "t000", "t001", "t001"]
    assert [line for line in diary.lines if "note" in line] == [], "nobody takes over anybody"
    assert [outcome.status for outcome in search(SPEC, folder, info)] == [TrialStatus.PRUNED] * 2
    assert left_over() == []
