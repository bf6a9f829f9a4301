"""Read the package sources configured for pip and uv on this machine.

Sources are pip's configuration files, pip's environment variables and uv's, in increasing precedence. This
project's code contains no address; the default index is the client library's own.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SECTIONS = ("global", "download", "install")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Package sources, in order of preference."""

    index_urls: tuple[str, ...] = ()
    """Configured package indexes."""
    use_default_index: bool = True
    """Whether to query the client's default index too."""
    find_links: tuple[str, ...] = ()
    """Folders or pages that list archives, as URLs."""
    trusted_hosts: tuple[str, ...] = ()
    certificates: str | None = None
    """File of certificate authorities; None: the system's."""
    timeout_s: float = 60.0

    def verify(self) -> ssl.SSLContext | bool:
        """Return the `verify` argument for an HTTP client."""
        return ssl.create_default_context(cafile=self.certificates) if self.certificates else True


def _config_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the configuration files of pip, lowest precedence first (its documentation, "Configuration")."""
    if environ.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path.home()
    system = [
        Path(folder) / "pip" / "pip.conf" for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    files = [*system, Path("/etc/pip.conf"), home / ".pip" / "pip.conf", user, Path(sys.prefix) / "pip.conf"]
    if named := environ.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    return files


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for path in _config_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip reports the error in its own file
        for section in _SECTIONS:
            if parser.has_section(section):
                settings.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            settings[name[4:].lower().replace("_", "-")] = value
    return settings


def _words(*values: str | None) -> list[str]:
    return [word for value in values if value for word in re.split(r"[\s,]+", value.strip()) if word]


def _address(place: str) -> str:
    return place if "://" in place else Path(place).expanduser().absolute().as_uri()


def index_settings(environ: Mapping[str, str] | None = None) -> IndexSettings:
    """Return the sources of packages configured on this machine.

    Args:
        environ: the environment to read; default: the process's own.
    """
    environ = os.environ if environ is None else environ
    pip = _pip_settings(environ)
    default = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or pip.get("index-url")
    extra = _words(pip.get("extra-index-url"), environ.get("UV_EXTRA_INDEX_URL"), environ.get("UV_INDEX"))
    no_index = pip.get("no-index", environ.get("UV_NO_INDEX", "")).lower() in {"1", "true", "yes", "on"}
    # uv writes a named index as name=address.
    names = [re.sub(r"^[A-Za-z0-9._-]+=", "", word) for word in [*_words(default), *extra]]
    indexes = tuple(dict.fromkeys(_address(name) for name in names))
    try:
        timeout_s = max(float(pip.get("default-timeout", pip.get("timeout", 60.0))), 1.0)
    except ValueError:
        timeout_s = 60.0
    links = _words(pip.get("find-links"), environ.get("UV_FIND_LINKS"))
    return IndexSettings(
        index_urls=() if no_index else indexes,
        use_default_index=not default and not no_index,
        find_links=tuple(dict.fromkeys(_address(place) for place in links)),
        trusted_hosts=tuple(_words(pip.get("trusted-host"), environ.get("UV_INSECURE_HOST"))),
        certificates=pip.get("cert") or environ.get("SSL_CERT_FILE"),
        timeout_s=timeout_s,
    )
