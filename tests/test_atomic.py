"""Files that are whole or not there, and what a process that died over one leaves."""

import pytest

from platform.atomic import discard_unfinished, replacing, write_json, write_text


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, {"trials": 4})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"trials": float("nan")})
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == '{\n  "trials": 4\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    write_text(tmp_path / "plan.json", "whole")
    (tmp_path / ".trials.parquet.4711.tmp").write_text("half")
    (tmp_path / ".hidden").write_text("somebody else's")
    discard_unfinished(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", "plan.json"]
