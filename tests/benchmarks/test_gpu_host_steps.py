"""The steps as processes: timeout, crash, interrupt, and all steps on a bare host."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu_host import __main__ as command
from benchmarks.gpu_host.facts import read
from benchmarks.gpu_host.schedule import STEPS, Step

ROOT = Path(__file__).parents[2]
FAKES = """
import os, subprocess, time
from platform.common.errors import UserError

def hang(call):
    child = subprocess.Popen(["sleep", "600"])
    call.note("profile_of_a_test", pid=child.pid)
    print("about to hang")
    time.sleep(600)

def crash(call):
    os.abort()

def refuse(call):
    raise UserError("the rule:\\n  the remedy")

def work(call):
    call.note("found", limit_s=call.limit_s)
"""
# A host without the sweep's libraries, whose .pth files import the standard library's `platform`.
BARE_HOST = """
import os, sys
from importlib.util import module_from_spec, spec_from_file_location

sys.modules.update(dict.fromkeys(["ray", "mlflow", "optuna", "rich", "tyro", "matplotlib"]))
spec = spec_from_file_location("platform", os.path.join(os.path.dirname(os.__file__), "platform.py"))
sys.modules["platform"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["platform"])
"""


def test_hanging_or_crashing_step_does_not_affect_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fake_steps.py").write_text(FAKES)
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    # The limit of the hanging step must allow for its start on a busy machine.
    steps = [
        Step(name, f"fake_steps:{name}", 1, 5 if name == "hang" else 50, path)
        for name in ("hang", "crash", "refuse", "work")
    ]
    monkeypatch.setattr(command, "STEPS", (*steps, Step("long", "fake_steps:work", 600, 600)))
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    assert command.main(["--tiny", "--output", str(out), "--json", str(tmp_path / "copy.json")]) == 1
    context, *facts = read(out / "facts.jsonl")
    assert context["settings"]["planned"] == ["hang", "crash", "refuse", "work"]
    by_kind = {fact["kind"]: fact for fact in facts}
    assert by_kind["found"]["limit_s"] == 50
    pid = by_kind["profile_of_a_test"]["pid"]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    ended = {fact["name"]: (fact["outcome"], fact.get("why")) for fact in facts if fact["kind"] == "step"}
    assert ended["hang"] == ("timed out", "about to hang")
    assert ended["crash"] == ("failed", f"exit code {-signal.SIGABRT}")
    assert ended["refuse"] == ("failed", "the rule: the remedy")
    assert ended["work"] == ("done", None)
    assert ended["long"][0] == "skipped"
    assert json.loads((out / "record.json").read_text())["results"] == facts
    assert (tmp_path / "copy.json").read_text() == (out / "record.json").read_text()
    assert "-- hang: timed out" in capsys.readouterr().out


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_writes_record_and_table(sent: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_host", "--tiny", "--only", "equality", "--output", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "step 1 of 1" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(sent)
        printed, _ = process.communicate()
    assert process.returncode == 130
    assert "-- equality: interrupted" in printed
    assert json.loads((out / "record.json").read_text())["results"][-1]["outcome"] == "interrupted"


def test_every_step_runs_on_a_bare_host_at_tiny_size(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE_HOST)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_host", "--tiny", "--minutes", "30", "--output", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    log = (out / "log.txt").read_text()
    assert done.returncode == 0, done.stderr + log
    _, *facts = read(out / "facts.jsonl")
    ended = [(fact["name"], fact["outcome"]) for fact in facts if fact["kind"] == "step"]
    assert ended == [(step.name, "done") for step in STEPS]
    (environment,) = (fact for fact in facts if fact["kind"] == "environment")
    assert (environment["standard_platform_first"], environment["failed"]) == (True, {})
    assert all(fact["equal"] and fact["captured"] for fact in facts if fact["kind"] == "equality")
    rates = [fact for fact in facts if fact["kind"] == "rate"]
    assert {fact["way"] for fact in rates} == {"captured", "eager"}
    assert {fact["knob"] for fact in rates} == {None, "cudnn.benchmark", "heuristic B", "torch.compile"}
    assert all(fact["captured"] == (fact["way"] == "captured") for fact in rates)
    assert all((fact["replay_ms"] is None) == (fact["way"] == "eager") for fact in rates)
    profiles = [fact for fact in facts if fact["kind"] == "profile"]
    assert {(fact["way"], fact["calls"] > 100) for fact in profiles} == {("eager", True), ("captured", True)}
    assert [fact["recipe"] for fact in facts if fact["kind"] == "accuracy"] == [
        "resnet18_ddp",
        "he2016_resnet32",
    ]
    assert "reference loop, resnet20_cifar:" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("-- done: environment")
