"""The search order for datasets, the download, and the errors for missing data."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from platform.common.errors import UsageError, UserError
from platform.data import cache, catalog
from platform.data.catalog import DataNotFound, load_split, prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import CIFAR10_CLASSES
from platform.data.formats import archive, download
from tests.data.examples import accept_checksums, make_archive, make_parquet, make_tree


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """Serve a folder on loopback as the download server of CIFAR-10."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{running.server_address[1]}/{archive.ARCHIVE}"
        monkeypatch.setattr(download, "URL", address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield folder
        running.shutdown()
        thread.join()


def test_data_dir_takes_precedence_over_the_environment(tmp_path: Path, tiny, monkeypatch) -> None:
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path / "nowhere"))
    path = make_parquet(tmp_path / "source")
    assert prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache").train_images == 60


def test_cifar10_dir_is_used(tmp_path: Path, tiny, monkeypatch) -> None:
    monkeypatch.setenv("CIFAR10_DIR", str(make_parquet(tmp_path / "source")))
    assert prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache", offline=True).train_images == 60


def test_one_parquet_file_selects_its_folder(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source") / "test-00000-of-00001.parquet"
    assert prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache").train_images == 60


@pytest.mark.parametrize("option", ["--data-dir", "CIFAR10_DIR"])
@pytest.mark.parametrize("path", ["nowhere", "empty", "file.txt"])
def test_a_given_path_without_data_is_an_error(tmp_path: Path, monkeypatch, option: str, path: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("not data")
    data_dir = tmp_path / path
    if option == "CIFAR10_DIR":
        monkeypatch.setenv("CIFAR10_DIR", str(data_dir))
    with pytest.raises(UserError, match=rf"^{option}: .*{path}") as caught:
        prepare_dataset(
            DataConfig(),
            data_dir=data_dir if option == "--data-dir" else None,
            cache_dir=tmp_path / "cache",
        )
    assert not isinstance(caught.value, DataNotFound)


def assert_three_remedies(message: str) -> None:
    assert "--data-dir or CIFAR10_DIR" in message
    assert "connect to the internet" in message
    assert "--quick" in message
    assert "data.name: generated" in message


def test_missing_data_offline_lists_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache", offline=True)
    assert_three_remedies(str(caught.value))
    assert not (tmp_path / "cache").exists()


def test_missing_network_lists_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="refused") as caught:
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache")
    assert_three_remedies(str(caught.value))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_download_without_a_response_times_out(tmp_path: Path, monkeypatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.05)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: never.wait(30))
    with pytest.raises(DataNotFound, match="no response within"):
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache")
    never.set()


def test_download_is_checked_cached_and_not_repeated(tmp_path: Path, tiny, monkeypatch, server: Path) -> None:
    file = make_archive(tmp_path / "made")
    accept_checksums(monkeypatch, tmp_path / "made" / "extracted" / archive.FOLDER, file)
    (server / archive.ARCHIVE).write_bytes(file.read_bytes())
    info = prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache")
    (server / archive.ARCHIVE).unlink()
    assert prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache") == info
    assert info.label == "cifar10"


def test_a_download_with_a_wrong_checksum_is_removed(tmp_path: Path, server: Path) -> None:
    (server / archive.ARCHIVE).write_bytes(b"<html>please log in</html>")
    got = hashlib.md5(b"<html>please log in</html>", usedforsecurity=False).hexdigest()
    with pytest.raises(DataNotFound, match=got):
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_missing_file_on_the_server_is_not_found(tmp_path: Path, server: Path) -> None:
    with pytest.raises(DataNotFound, match="404"):
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache")


def test_a_cached_jpeg_copy_is_not_used_as_cifar10(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source", file_format="JPEG", quality=75)
    prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")
    with pytest.raises(DataNotFound):
        prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache", offline=True)


def test_a_cached_lossless_copy_is_used_as_cifar10(tmp_path: Path, tiny) -> None:
    info = prepare_dataset(
        DataConfig(), data_dir=make_parquet(tmp_path / "source"), cache_dir=tmp_path / "cache"
    )
    assert prepare_dataset(DataConfig(), cache_dir=tmp_path / "cache", offline=True) == info


def test_folder_reads_the_users_own_images(tmp_path: Path) -> None:
    path = make_tree(tmp_path / "pets", file_format="JPEG")
    info = prepare_dataset(DataConfig(name="folder"), data_dir=path, cache_dir=tmp_path / "cache")
    assert (info.name, info.label, info.class_names) == ("folder", "folder:pets", CIFAR10_CLASSES)
    assert load_split(info, "test").images.shape == (20, 3, 32, 32)


def test_folder_needs_data_dir(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data-dir ROOT"):
        prepare_dataset(DataConfig(name="folder"), cache_dir=tmp_path / "cache")


def test_class_folders_without_a_test_folder_are_refused(tmp_path: Path) -> None:
    path = make_tree(tmp_path / "pets", test="extra")
    with pytest.raises(UserError, match=r"a 'test' \(or 'val'\) folder is needed"):
        prepare_dataset(DataConfig(name="folder"), data_dir=path, cache_dir=tmp_path / "cache")


def test_a_test_class_without_training_images_is_refused(tmp_path: Path) -> None:
    path = make_tree(tmp_path / "pets")
    (path / "test" / "unicorn").mkdir()
    with pytest.raises(UserError, match="unicorn"):
        prepare_dataset(DataConfig(name="folder"), data_dir=path, cache_dir=tmp_path / "cache")


def test_the_users_own_images_are_refused_as_cifar10(tmp_path: Path) -> None:
    path = make_tree(tmp_path / "pets")
    with pytest.raises(UserError, match=r"'data\.name: folder'"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, tiny) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        prepare_dataset(DataConfig(), data_dir=make_parquet(tmp_path / "source"), cache_dir=tmp_path / "file")


def test_the_cache_is_in_xdg_cache_home(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path / "resnet-sweep-platform"


def test_generated_images_report_that_data_dir_has_no_effect(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(catalog.generated, "TRAIN_IMAGES", 30)
    monkeypatch.setattr(catalog.generated, "TEST_IMAGES", 10)
    messages: list[str] = []
    info = prepare_dataset(
        DataConfig(name="generated"),
        data_dir=tmp_path,
        cache_dir=tmp_path / "cache",
        offline=True,
        progress=messages.append,
    )
    assert (info.label, info.train_images, info.test_images) == ("generated", 30, 10)
    assert any("no effect" in message for message in messages)
