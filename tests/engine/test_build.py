"""Build tools and ncnn's sources; failed and interrupted builds."""

import io
import tarfile
from pathlib import Path

import pytest

from deploy.engine_build import build_tools, ncnn_source, package_index
from deploy.engine_build.build_tools import BuildTools, find_build_tools
from deploy.engine_build.ncnn_source import SDIST_NAME, ensure_ncnn, fetch_sdist
from deploy.engine_build.package_index import IndexSettings, index_settings
from platform.common import time_left
from platform.common.errors import UserError

EMPTY = {"PIP_CONFIG_FILE": "/dev/null"}


def quiet(_: str) -> None:
    """Ignore progress messages."""


def test_missing_compiler_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"apt-get install g\+\+"):
        find_build_tools()


def test_build_tools_next_to_the_interpreter_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("python", "cmake", "ninja"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(build_tools.sys, "executable", str(tmp_path / "python"))
    tools = find_build_tools()
    assert (tools.cmake, tools.ninja) == (tmp_path / "cmake", tmp_path / "ninja")


def test_index_settings_from_the_environment() -> None:
    assert index_settings(EMPTY) == IndexSettings()
    settings = index_settings(
        EMPTY | {"PIP_INDEX_URL": "https://a/simple", "PIP_EXTRA_INDEX_URL": "https://b https://c"}
    )
    assert settings.index_urls == ("https://a/simple", "https://b", "https://c")
    assert not settings.use_default_index
    assert index_settings(
        EMPTY | {"UV_DEFAULT_INDEX": "https://u", "UV_INDEX": "n=https://v"}
    ).index_urls == (
        "https://u",
        "https://v",
    )
    assert not index_settings(EMPTY | {"PIP_NO_INDEX": "1"}).use_default_index
    assert index_settings(EMPTY | {"PIP_FIND_LINKS": "/x/y"}).find_links == ("file:///x/y",)


def test_index_settings_from_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ignore the configuration files of this machine.
    monkeypatch.setattr(package_index, "_config_files", lambda environ: [Path(environ["PIP_CONFIG_FILE"])])
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://file\ncert = /c.pem\n[install]\ntrusted-host = t\n")
    settings = index_settings({"PIP_CONFIG_FILE": str(file)})
    assert settings.index_urls == ("https://file",)
    assert (settings.trusted_hosts, settings.certificates) == (("t",), "/c.pem")
    overridden = index_settings({"PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://env"})
    assert overridden.index_urls == ("https://env",)


def test_sources_with_a_wrong_hash_are_rejected(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / SDIST_NAME).write_bytes(b"something else")
    archive = tmp_path / "cache" / SDIST_NAME
    settings = IndexSettings(find_links=(shelf.as_uri(),), use_default_index=False)
    with pytest.raises(UserError, match=r"(?s)Hash mismatch.*PIP_INDEX_URL"):
        fetch_sdist(archive, progress=quiet, settings=settings)
    assert not archive.exists()


def test_missing_sources_give_the_remedies(tmp_path: Path) -> None:
    settings = IndexSettings(find_links=(tmp_path.as_uri(),), use_default_index=False)
    with pytest.raises(UserError, match=r"(?s)has no ncnn.*Go online"):
        fetch_sdist(tmp_path / SDIST_NAME, progress=quiet, settings=settings)


def test_sources_are_unpacked_before_python_3_11_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian 12's Python 3.11.2 has no `filter` argument."""
    content = b"int x;"
    member = tarfile.TarInfo(f"{SDIST_NAME.removesuffix('.tar.gz')}/src/net.cpp")
    member.size = len(content)
    archive = tmp_path / SDIST_NAME
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(content))
    newest = tarfile.TarFile.extractall
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda tar, path=".": newest(tar, path))
    monkeypatch.setattr(ncnn_source, "default_cache_dir", lambda: tmp_path)
    monkeypatch.setattr(ncnn_source, "SDIST_SHA256", ncnn_source._sha256(archive))
    (tmp_path / "work").mkdir()
    source = ncnn_source._unpacked_source(tmp_path / "work", progress=quiet)
    assert (source / "src" / "net.cpp").read_bytes() == content


@pytest.fixture
def tools() -> BuildTools:
    return BuildTools(
        cmake=Path("cmake"), ninja=Path("ninja"), compiler=Path("c++"), compiler_identity="test", jobs=1
    )


def test_interrupted_build_is_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: BuildTools
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "source"
    (source / "src").mkdir(parents=True)
    (source / "src" / "stb_image.h").write_text("")
    monkeypatch.setattr(ncnn_source, "_unpacked_source", lambda *_, **__: source)
    monkeypatch.setattr(ncnn_source, "run_cmake", lambda *_, **__: None)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ncnn_source, "run_ninja", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure_ncnn(tools, progress=quiet)

    def build(_: BuildTools, build_dir: Path, *, what: str, **__: object) -> None:
        if what.startswith("installing"):
            (build_dir.parent / "installed" / "include").mkdir(parents=True)

    monkeypatch.setattr(ncnn_source, "run_ninja", build)
    prefix = ensure_ncnn(tools, progress=quiet)
    assert (prefix / "include" / "stb_image.h").is_file()
    monkeypatch.setattr(ncnn_source, "run_ninja", interrupt)
    assert ensure_ncnn(tools, progress=quiet) == prefix


def test_failed_build_reports_output_and_log(tmp_path: Path) -> None:
    found = find_build_tools()
    (tmp_path / "build.ninja").write_text("rule no\n command = echo broken && false\nbuild x: no\n")
    with pytest.raises(UserError, match=r"(?s)building x failed.*broken.*build\.log"):
        build_tools.run_ninja(found, tmp_path, log=tmp_path / "build.log", what="building x")


def test_progress_has_percentage_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_left, "_EVERY_S", 0.0)
    rules = "rule wait\n command = true\n" + "".join(f"build x{i}: wait\n" for i in range(4))
    (tmp_path / "build.ninja").write_text(rules)
    messages: list[str] = []
    build_tools.run_ninja(
        find_build_tools(), tmp_path, log=tmp_path / "log", what="building x", progress=messages.append
    )
    assert messages[0].startswith("building x: 25 %, ")
    assert all(line.endswith("left") for line in messages)
