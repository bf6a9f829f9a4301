"""The commands for a finished sweep: list, export, repeat, extend, evaluate again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from platform.tracking.parquet_tables import read_epochs, read_trials
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.extend_sweep import final_runs
from tests.sweep.examples import ROOT, Place

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def folder(copy: Place) -> SweepFolder:
    [folder] = copy.sweeps
    return folder


def test_the_list_has_the_state_and_the_best_accuracy(copy: Place, folder: SweepFolder) -> None:
    done = copy.sweep("--list")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split() == ["sweep", "state", "trials", "best", "validation", "test", "time", "age"]
    champion = json.loads(folder.champion.read_text())
    assert row.split()[:5] == [
        folder.sweep_id,
        "finished",
        "2/2",
        champion["trial_id"],
        f"{100 * champion['estimate']['mean']:.2f}",
    ]


def test_the_list_without_sweeps(place: Place) -> None:
    done = place.sweep("--list")
    assert (done.returncode, done.stdout) == (0, f"no sweeps in {place.path / 'runs'}\n")


def test_a_search_trial_is_exported(copy: Place, folder: SweepFolder) -> None:
    other = next(row.trial_id for row in read_trials(folder) if row.stage == "search")
    done = copy.sweep("--export", folder.sweep_id, other)
    assert done.returncode == 0, done.stderr
    out = folder.path / "exports" / other
    assert done.stdout == f"{out}\n"
    source = json.loads((out / "model.json").read_text())["source"]
    assert (source["sweep"], source["run"]) == (folder.sweep_id, other)
    # A pruned trial has only a checkpoint, which contains the same network.
    (folder.checkpoint_dir(other) / "model.pt").unlink()
    whole = json.loads((out / "model.json").read_text())["self_test"]
    assert copy.sweep("--export", folder.sweep_id, other).returncode == 0
    assert json.loads((out / "model.json").read_text())["self_test"] == whole


def test_an_unknown_trial(copy: Place, folder: SweepFolder) -> None:
    done = copy.sweep("--export", folder.sweep_id, "t01")
    assert done.returncode == 1
    assert f"{folder.sweep_id} has no trial 't01' (did you mean 't001'?)" in done.stderr


@pytest.mark.parametrize("trial_id", ["t001", "final"])
def test_a_trial_is_repeated_exactly(copy: Place, folder: SweepFolder, trial_id: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "platform.train",
            "--trial",
            folder.sweep_id,
            trial_id,
            "--output",
            "repeated",
        ],
        cwd=copy.path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((copy.path / "repeated" / "record.json").read_text())
    names = ("train_loss", "validation_loss", "validation_accuracy", "grad_norm")
    before = [[getattr(epoch, name) for name in names] for epoch in read_epochs(folder)[trial_id]]
    assert [[epoch[name] for name in names] for epoch in record["epochs"]] == before


def test_an_extension_repeats_only_the_affected_stages(copy: Place, folder: SweepFolder) -> None:
    refused = copy.sweep("--resume", folder.sweep_id, "--extend", "1")
    assert refused.returncode == 2
    assert "evaluated on the test set too. Add --again" in refused.stderr
    before = {row.trial_id: row.starts for row in read_trials(folder)}

    done = copy.sweep("--resume", folder.sweep_id, "--extend", "1", "--again")
    assert done.returncode == 0, done.stderr
    rows = {row.trial_id: row for row in read_trials(folder)}
    assert {trial_id: rows[trial_id].starts for trial_id in before} == before, "no trial ran twice"
    assert rows["t002"].completed
    assert folder.get_state() == "finished"
    selection = json.loads(folder.selection.read_text())
    confirmed = sum(entry["n"] for entry in selection["candidates"])
    assert (selection["planned_trials"], confirmed) == (3, len(_stage(rows, "confirm")))
    final = final_runs(folder)[-1].trial_id
    assert rows[final].params == json.loads(folder.champion.read_text())["params"]
    assert json.loads((folder.export / "model.json").read_text())["source"]["run"] == final
    openings = json.loads((folder.path / "test_opened.json").read_text())["openings"]
    assert [opening["run"] for opening in openings] == _stage(rows, "final")


def test_the_test_split_is_evaluated_again_only_with_again(copy: Place, folder: SweepFolder) -> None:
    done = copy.sweep("--resume", folder.sweep_id)
    assert done.returncode == 0, done.stderr
    assert _openings(folder) == 1
    done = copy.sweep("--resume", folder.sweep_id, "--again")
    assert done.returncode == 0, done.stderr
    assert _openings(folder) == 2
    assert json.loads(folder.test.read_text())["times_opened"] == 2


@pytest.mark.parametrize("word", ["--extend=2", "--again"])
def test_options_that_need_a_sweep_to_resume(place: Place, word: str) -> None:
    done = place.sweep("tiny.yaml", word)
    assert done.returncode == 2
    assert done.stderr.endswith("needs a sweep to continue: add --resume or --resume SWEEP\n")


def _stage(rows: dict, stage: str) -> list[str]:
    return [trial_id for trial_id, row in rows.items() if row.stage == stage]


def _openings(folder: SweepFolder) -> int:
    return len(json.loads((folder.path / "test_opened.json").read_text())["openings"])


def test_a_dry_run_writes_no_files(place: Place) -> None:
    done = place.sweep("tiny.yaml", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    quiet = place.sweep("tiny.yaml", "--dry-run", "--quiet")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert json.loads(quiet.stdout)["search"]["runs"] == 2
    assert sorted(path.name for path in Path(place.path).iterdir()) == ["tiny.yaml"]


def test_a_lost_sweep_is_restored_from_its_mirror(copy: Place, folder: SweepFolder) -> None:
    def files(path: Path) -> dict[str, bytes]:
        found = (each for each in path.rglob("*") if each.is_file())
        names = {each.relative_to(path).as_posix(): each.read_bytes() for each in found}
        return {name: names[name] for name in names if not name.startswith(("tune/", "mirror"))}

    before = files(folder.path)
    assert files(copy.path / "mirror" / folder.sweep_id) == before
    folder.path.rename(copy.path / "lost")
    done = copy.sweep("--resume", "mirror")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder.path}\n"
    after = files(folder.path)
    unchanged = ("journal.jsonl", "test.json", "selection.json", "checkpoints/final/model.pt")
    assert [after[name] for name in unchanged] == [before[name] for name in unchanged]
    assert files(copy.path / "mirror" / folder.sweep_id) == after
