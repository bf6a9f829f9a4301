"""Reading regular files of limited size."""

import os
from pathlib import Path

import pytest

from platform.common.errors import UserError
from platform.common.regular_file import read_regular_file


def test_a_file_up_to_the_limit_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    assert read_regular_file(tmp_path / "a", max_bytes=4) == b"1234"
    with pytest.raises(UserError, match="a may have at most 3 bytes, got 4"):
        read_regular_file(tmp_path / "a", max_bytes=3)


def test_other_kinds_of_files_are_refused_without_reading_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "pipe is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "is a folder; give a file"),
        (tmp_path / "none", "none: no such file"),
        (Path("a\0"), "cannot read"),
    ):
        with pytest.raises(UserError, match=message):
            read_regular_file(path, max_bytes=10)
