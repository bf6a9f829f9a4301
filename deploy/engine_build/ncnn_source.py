"""Build ncnn as a static library, once per version and set of options, in a cache outside the tree.

No package has ncnn's headers, but the source distribution of its Python package has the whole C++ tree. It is
fetched by name and version from the package index configured on this machine, checked against the hash below,
built in part (cpp_engine/cmake/ncnn_options.cmake) and installed. This takes five minutes of one core.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from deploy.engine_build.build_lock import Progress, locked
from deploy.engine_build.build_tools import BuildTools, run_cmake, run_ninja
from deploy.engine_build.package_index import IndexSettings, index_settings
from platform.common.errors import UserError
from platform.data.cache import default_cache_dir

NCNN_VERSION = "20261020"
SDIST_NAME = f"ncnn-1.0.{NCNN_VERSION}.tar.gz"
SDIST_SHA256 = "ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200"

ENGINE_DIR = Path(__file__).resolve().parents[2] / "cpp_engine"
_OPTIONS = ENGINE_DIR / "cmake" / "ncnn_options.cmake"


def ensure_ncnn(tools: BuildTools, *, progress: Progress) -> Path:
    """Return the install prefix of ncnn; build it first if it is not in the cache.

    Args:
        tools: the compiler, cmake and ninja.
        progress: called with progress messages.

    Returns:
        the folder that contains lib/cmake/ncnn and include/ncnn.

    Raises:
        UserError: the sources cannot be fetched or built.
    """
    key = hashlib.sha256(f"{ncnn_recipe()}\0{tools.compiler_identity}\0".encode()).hexdigest()[:12]
    prefix = default_cache_dir() / f"ncnn-{NCNN_VERSION}-{key}"
    if prefix.is_dir():
        return prefix
    with locked(prefix.with_name(prefix.name + ".lock"), progress=progress) as report:
        # Only complete installations are renamed to this path.
        if not prefix.is_dir():
            _build(prefix, tools, progress=report)
    return prefix


def ncnn_recipe() -> str:
    """Return the inputs of ncnn's build except the compiler: the hash of the sources, and the options."""
    return f"{SDIST_SHA256}\0{_OPTIONS.read_text(encoding='utf-8')}"


def _build(prefix: Path, tools: BuildTools, *, progress: Progress) -> None:
    work = prefix.with_name(prefix.name + ".building")  # kept when interrupted: ninja resumes the build
    work.mkdir(parents=True, exist_ok=True)
    source = _unpacked_source(work, progress=progress)
    installed = work / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    log = work / "build.log"
    progress("building ncnn, once per machine: about 3 minutes on two idle cores")
    run_cmake(
        tools,
        [
            *("-S", str(source), "-B", str(work / "build")),
            *(f"-DNCNN_SOURCE_DIR={source}", "-C", str(_OPTIONS)),
            *("-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={installed}"),
            "-DCMAKE_INSTALL_LIBDIR=lib",
        ],
        log=log,
        what="configuring ncnn",
    )
    run_ninja(tools, work / "build", log=log, what="building ncnn", progress=progress, weigh=_weigh)
    run_ninja(tools, work / "build", log=log, what="installing ncnn", targets=["install"])
    # The engine's fallback image reader; ncnn does not install it.
    shutil.copy2(source / "src" / "stb_image.h", installed / "include" / "stb_image.h")
    (installed / "built-with.txt").write_text(
        f"ncnn {NCNN_VERSION}\n{tools.compiler_identity}\n{_OPTIONS.read_text()}"
    )
    os.sync()
    installed.replace(prefix)
    shutil.rmtree(work, ignore_errors=True)


def _weigh(step: str) -> float:
    """Return the approximate core seconds of a build step: eight files take three quarters of the time."""
    if "Building" not in step:
        return 0.03
    return 30.0 if "/convolution_x86" in step else 1.0


def _unpacked_source(work: Path, *, progress: Progress) -> Path:
    source = work / "source"
    if source.is_dir():
        return source
    archive = default_cache_dir() / SDIST_NAME
    if not (archive.is_file() and _sha256(archive) == SDIST_SHA256):
        fetch_sdist(archive, progress=progress)
    unpacking = work / "unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)
    _unpack(archive, unpacking)
    (unpacking / SDIST_NAME.removesuffix(".tar.gz")).replace(source)
    shutil.rmtree(unpacking, ignore_errors=True)
    return source


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        # An attribute, because `extractall(filter=)` is a TypeError before Python 3.11.4.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)  # noqa: S202 - filtered by the line above, and the sha256 of the archive is checked


def fetch_sdist(archive: Path, *, progress: Progress, settings: IndexSettings | None = None) -> None:
    """Download ncnn's source distribution to `archive` and check its hash.

    Args:
        archive: path of the file; not created on failure.
        progress: called with progress messages.
        settings: package sources; default: the configuration of pip and uv.

    Raises:
        UserError: no configured source has the file, or its hash is wrong.
    """
    from unearth.errors import UnpackError
    from unearth.preparer import HTTPErrors

    known_errors: tuple[type[Exception], ...] = (*HTTPErrors, UnpackError, OSError)
    settings = settings or index_settings()
    progress(f"fetching {SDIST_NAME} from the package index")
    failures = []
    sources = [{"find_links": [place]} for place in settings.find_links]
    if settings.use_default_index:
        sources.append({})
    sources += [{"index_urls": [url]} for url in settings.index_urls]
    for source in sources:
        name = next(iter(source.values()), ["the default index"])[0]
        try:
            if _fetch_from(source, archive, settings):
                return
            failures.append(f"{name}: has no {SDIST_NAME}")
        except known_errors as error:
            failures.append(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")
    listed = "".join(f"\n  {failure}" for failure in failures)
    raise UserError(
        f"building the engine requires {SDIST_NAME}, which no configured package source provides:{listed}\n"
        f"Go online, set PIP_INDEX_URL to a reachable index, or put the file itself at {archive}."
    )


def _fetch_from(source: Mapping[str, list[str]], archive: Path, settings: IndexSettings) -> bool:
    """Download the file from one source, given as `index_urls` or `find_links`; return whether it has it."""
    from unearth import PackageFinder
    from unearth.fetchers.sync import PyPIClient

    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts, verify=settings.verify(), timeout=settings.timeout_s
    )
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        # Same client class as the finder's default, with our certificates; its annotations are incompatible.
        finder = PackageFinder(client, no_binary=["ncnn"], **source)  # type: ignore[arg-type]
        package = finder.find_best_match(f"ncnn==1.0.{NCNN_VERSION}").best
        if package is None:
            return False
        fetched = finder.download(package.link, partial, hashes={"sha256": [SDIST_SHA256]})
        archive.parent.mkdir(parents=True, exist_ok=True)
        if not fetched.is_relative_to(partial):  # an archive in a local folder is not copied
            partial.mkdir(parents=True, exist_ok=True)
            fetched = Path(shutil.copy2(fetched, partial))
        fetched.replace(archive)
        return True
    finally:
        client.close()
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
