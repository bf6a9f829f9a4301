"""Download CIFAR-10 with progress messages; without a network, fail within seconds."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from platform.common.time_left import TimeLeft
from platform.data.dataset import DataNotFound, Notify

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_TIMEOUT_S = 10.0
_BLOCK = 1 << 18


def download(target: Path, *, md5: str, notify: Notify) -> None:
    """Download `URL` to a temporary file, verify its checksum, and rename it to `target`.

    Proxies are taken from the environment. `notify` is called every two seconds.

    Raises:
        DataNotFound: no network, no such file on the server, or a wrong checksum.
    """
    notify(f"downloading CIFAR-10 [{URL}]")
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as opened:
            got = _receive(opened, notify)
            opened.flush()
            os.fsync(opened.fileno())
        if got != md5:
            raise DataNotFound(f"{URL}: the MD5 of the download must be {md5}, got {got}")
        temporary.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise DataNotFound(f"cannot download {URL} ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _receive(opened: Any, notify: Notify) -> str:
    """Write the content of `URL` to the open file and return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    with _open() as response:
        size = int(response.headers.get("Content-Length") or 0)
        progress = TimeLeft("downloading CIFAR-10", size / 1e6, notify, unit="MB")
        while block := response.read(_BLOCK):
            opened.write(block)
            digest.update(block)
            received += len(block)
            progress.update(received / 1e6)
    return digest.hexdigest()


def _open() -> Any:
    """Open `URL` within the timeout. The thread bounds name resolution, which a socket timeout does not."""
    outcome: list[Any] = []

    def attempt() -> None:
        request = urllib.request.Request(URL, headers={"User-Agent": "resnet-sweep-platform"})
        try:
            outcome.append(urllib.request.urlopen(request, timeout=_TIMEOUT_S))  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            outcome.append(OSError(f"HTTP status {error.code}: {error.reason}"))
        except urllib.error.URLError as error:
            outcome.append(OSError(str(error.reason)))
        except (OSError, http.client.HTTPException) as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    if not outcome:
        raise TimeoutError(f"no response within {_TIMEOUT_S:.0f} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
