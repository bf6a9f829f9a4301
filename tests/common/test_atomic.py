"""Atomic writes and their remains after a crash; reading JSON files."""

import errno

import pytest

from platform.common.atomic import discard_unfinished, read_json, replacing, write_json, write_text
from platform.common.errors import UserError


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, {"trials": 4})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"trials": float("nan")})
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == '{\n  "trials": 4\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_failed_write_names_the_file_and_leaves_no_folder(tmp_path):
    path = tmp_path / "runs" / "new" / "run.json"
    with pytest.raises(OSError, match="No space left") as caught, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    write_text(tmp_path / "plan.json", "whole")
    (tmp_path / ".trials.parquet.4711.tmp").write_text("half")
    (tmp_path / ".hidden").write_text("a file of another program")
    discard_unfinished(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", "plan.json"]


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "plan.json", {"trials": 4, "é": [None, 0.1]})
    assert read_json(tmp_path / "plan.json", remedy="") == {"trials": 4, "é": [None, 0.1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "FILE: no such file; restore it"),
        (b"", "FILE is damaged: Expecting value: line 1 column 1 (char 0); restore it"),
        (b'{"trials": 4', "FILE is damaged: Expecting ',' delimiter: line 1 column 13 (char 12); restore it"),
        (
            b"\xff\xfe",
            "FILE is damaged: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (b"[1]", "FILE is damaged: not a JSON object; restore it"),
        (b"[" * 100_000, "FILE is damaged: maximum recursion depth exceeded"),
    ],
)
def test_a_damaged_json_file_is_refused_with_its_name_and_the_remedy(tmp_path, content, message):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path, remedy="restore it")
    assert str(caught.value).startswith(message.replace("FILE", str(path)))
    assert str(caught.value).endswith("; restore it")
