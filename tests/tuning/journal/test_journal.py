"""The journal file: durable writes, damaged lines, one process at a time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.journal.journal import Journal, open_journal, read_journal, refuse_running
from tests.tuning.journal.examples import a_record, a_task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep" / "journal.jsonl"
    with open_journal(path) as journal:
        journal.trial(a_task())
        journal.epoch("t000", a_record())
        journal.ended("t000", TrialStatus.FAILED, "Traceback ...")
    return path


def test_events_are_read_back_equal_and_in_order(path: Path) -> None:
    task, epoch, ended = read_journal(path)
    assert task.task == a_task()
    assert epoch.record == a_record()
    assert (ended.trial_id, ended.status, ended.error) == ("t000", TrialStatus.FAILED, "Traceback ...")
    with open_journal(path) as journal:
        assert journal.past == (task, epoch, ended)


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("trial", lambda journal: journal.trial(a_task("t001"))),
        ("epoch", lambda journal: journal.epoch("t000", a_record(2))),
        ("ended", lambda journal: journal.ended("t000", TrialStatus.PRUNED, None)),
        ("retry", lambda journal: journal.retry("t000", accumulate=2, note="")),
        ("begin", Journal.begin),
        ("stopped", lambda journal: journal.stopped("")),
        ("extended", lambda journal: journal.extended("")),
    ],
)
def test_every_write_is_fsynced_before_it_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, write: Callable[[Journal], None]
) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def recording_fsync(fd: int) -> None:
        assert os.path.sameopenfile(fd, opened)
        fsync(fd)
        synced.append(path.read_bytes())

    with open_journal(path) as journal:
        opened = journal._fd
        monkeypatch.setattr(os, "fsync", recording_fsync)
        write(journal)
        assert synced == [path.read_bytes()], "one fsync, after the whole line was written"
    assert read_journal(path)[-1].kind == kind


def test_epochs_in_quick_succession_share_an_fsync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, now_s, fsync = list[int](), 100.0, os.fsync
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.stat().st_size) or fsync(fd))
    with open_journal(path) as journal:
        for epoch in range(2, 51):
            journal.epoch("t000", a_record(epoch))
        assert len(synced) == 1
        journal.ended("t000", TrialStatus.FINISHED, None)
        assert len(synced) == 2, "the end of a trial is a decision"
        journal.sync()
        assert len(synced) == 2, "nothing is left to sync"
        journal.epoch("t000", a_record(51))
        now_s += 0.1
        journal.sync()
        assert synced[2:] == [path.stat().st_size]


def test_a_clock_set_back_keeps_the_order_of_events(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with open_journal(path) as journal:
        journal.begin()
    *_, before, last = read_journal(path)
    assert last.at >= before.at


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_leaves_a_journal_that_can_be_continued(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before, write, parts = path.read_bytes(), os.write, iter([20])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(fd: int, content: bytes) -> int:
        part = next(parts, None)
        return full() if part is None else write(fd, content[:part])

    with open_journal(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, half if failing == "write" else full)
            with pytest.raises(UserError, match=r"No space left on device; free some .*; no event is lost"):
                journal.epoch("t000", a_record(2))
        assert path.read_bytes() == before
        assert journal.ledger.epochs_known("t000") == 1
        journal.epoch("t000", a_record(2))
    assert [event.kind for event in read_journal(path)] == ["trial", "epoch", "ended", "epoch"]


def test_a_short_write_is_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with open_journal(path) as journal:
        monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:10]))
        journal.epoch("t000", a_record(2))
    assert read_journal(path)[-1].record == a_record(2)


@pytest.mark.parametrize("torn", [b"{", b'{"event": "epoch", "trial": "t0', b'{"event": "begin", "at": 1.0}'])
def test_a_torn_last_line_is_dropped_and_overwritten(path: Path, torn: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_journal(path)) == 3
    assert path.read_bytes() == whole + torn, "a reader does not change the file"
    with open_journal(path) as journal:
        assert len(journal.past) == 3
        assert path.read_bytes() == whole
        journal.epoch("t000", a_record(epoch=2))
    assert [event.kind for event in read_journal(path)] == ["trial", "epoch", "ended", "epoch"]


def test_a_damaged_line_is_reported_with_its_number(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"rubbish\n" + lines[2])
    with pytest.raises(UserError, match="line 2: not an event of a sweep"):
        read_journal(path)


def test_a_second_process_is_refused(path: Path) -> None:
    with open_journal(path):
        with pytest.raises(UserError, match="another one runs sweep"), open_journal(path):
            pass
        with pytest.raises(UserError, match="another one runs sweep"):
            refuse_running(path)
    refuse_running(path)
    refuse_running(path.with_name("none.jsonl"))


def test_a_missing_journal_has_no_events(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == ()
