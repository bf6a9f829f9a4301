"""Users without a home folder or a name."""

import getpass
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from platform.common.home_folder import provide_home_folder


@pytest.fixture
def unknown_user(tmp_path, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unknown_user")
def test_an_unknown_user_gets_a_home_folder_that_is_kept(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError):
        Path.home()
    provide_home_folder()
    assert Path.home() == tmp_path / f"resnet-sweep-platform-{os.getuid()}"
    assert Path.home().stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == str(os.getuid())
    monkeypatch.delenv("HOME")
    provide_home_folder()
    assert list(tmp_path.iterdir()) == [Path.home()]


def test_a_known_home_folder_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "someone")
    provide_home_folder()
    assert (os.environ["HOME"], os.environ["USER"]) == (str(tmp_path), "someone")
