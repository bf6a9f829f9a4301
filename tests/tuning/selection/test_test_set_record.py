import os
from datetime import datetime
from pathlib import Path

import pytest

from platform.errors import UserError
from platform.tuning.selection.test_set_record import OPENED_FILE, RESULT_FILE, Openings, open_test_split


def kept(folder: Path) -> Openings:
    return Openings.model_validate_json((folder / OPENED_FILE).read_text())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_opening_is_recorded_before_the_split_is_read(tmp_path: Path) -> None:
    openings = open_test_split(tmp_path, split_sha256="ab12", run="final")
    assert openings == kept(tmp_path)
    (opening,) = openings.openings
    assert (opening.split_sha256, opening.run) == ("ab12", "final")
    assert datetime.fromisoformat(opening.opened_utc).utcoffset() is not None
    assert names(tmp_path) == [OPENED_FILE], "no temporary file stays"


def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    open_test_split(tmp_path, split_sha256="ab12", run="final")
    (tmp_path / RESULT_FILE).write_text("{}")
    before = (tmp_path / OPENED_FILE).read_bytes()
    with pytest.raises(UserError, match=r"opened once per sweep.*for run final.*use --again"):
        open_test_split(tmp_path, split_sha256="ab12", run="final")
    assert (tmp_path / OPENED_FILE).read_bytes() == before


def test_again_opens_it_and_keeps_every_opening(tmp_path: Path) -> None:
    open_test_split(tmp_path, split_sha256="ab12", run="final")
    (tmp_path / RESULT_FILE).write_text("{}")
    open_test_split(tmp_path, split_sha256="ab12", run="other", again=True)
    assert [opening.run for opening in kept(tmp_path).openings] == ["final", "other"]
    assert names(tmp_path) == [RESULT_FILE, OPENED_FILE]


def test_an_opening_whose_figure_was_never_written_is_continued(tmp_path: Path) -> None:
    first = open_test_split(tmp_path, split_sha256="ab12", run="final")
    assert open_test_split(tmp_path, split_sha256="ab12", run="final") == first


@pytest.mark.parametrize(("split", "run"), [("ab12", "other"), ("cd34", "final")])
def test_another_run_or_split_does_not_continue_it(tmp_path: Path, split: str, run: str) -> None:
    open_test_split(tmp_path, split_sha256="ab12", run="final")
    with pytest.raises(UserError, match="opened once per sweep"):
        open_test_split(tmp_path, split_sha256=split, run=run)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("content", ["", "{", '{"openings": []}'])
def test_a_damaged_record_counts_as_opened(tmp_path: Path, content: str, again: bool) -> None:
    (tmp_path / OPENED_FILE).write_text(content)
    with pytest.raises(UserError, match="counts as opened"):
        open_test_split(tmp_path, split_sha256="ab12", run="final", again=again)
    assert (tmp_path / OPENED_FILE).read_text() == content


def test_without_hard_links_it_is_recorded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    open_test_split(tmp_path, split_sha256="ab12", run="final")
    assert names(tmp_path) == [OPENED_FILE]
    with pytest.raises(UserError, match="opened once per sweep"):
        open_test_split(tmp_path, split_sha256="cd34", run="final")
