"""Download CIFAR-10 with progress messages; without a network, fail within seconds."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from platform.data.dataset import DataNotFound, Notify

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_TIMEOUT_S = 10.0
_BLOCK = 1 << 18
_PROGRESS_EVERY_S = 2.0


def download(target: Path, *, md5: str, notify: Notify, url: str | None = None) -> None:
    """Download `url` to a temporary file, verify its checksum, and rename it to `target`.

    Args:
        target: the file to create.
        md5: the expected checksum.
        notify: called with a progress message every two seconds.
        url: default: `URL`; proxies are taken from the environment.

    Raises:
        DataNotFound: no network, no such file on the server, or a wrong checksum.
    """
    url = url or URL
    notify(f"downloading CIFAR-10 [{url}]")
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as opened:
            got = _receive(url, opened, notify)
            opened.flush()
            os.fsync(opened.fileno())
        if got != md5:
            raise DataNotFound(f"{url}: the MD5 of the download must be {md5}, got {got}")
        temporary.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise DataNotFound(f"cannot download {url} ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _receive(url: str, opened: Any, notify: Notify) -> str:
    """Write the content of `url` to the open file and return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    started = notified = time.monotonic()
    received = 0
    with _open(url) as response:
        size = int(response.headers.get("Content-Length") or 0)
        while block := response.read(_BLOCK):
            opened.write(block)
            digest.update(block)
            received += len(block)
            now = time.monotonic()
            if now - notified >= _PROGRESS_EVERY_S:
                notified = now
                notify(f"downloading CIFAR-10 [{_progress_text(received, size, now - started)}]")
    return digest.hexdigest()


def _progress_text(received: int, size: int, elapsed_s: float) -> str:
    if not size:
        return f"{received / 1e6:.0f} MB"
    left_s = elapsed_s * (size - received) / received
    return f"{received / 1e6:.0f} of {size / 1e6:.0f} MB, {left_s:.0f} s left"


def _open(url: str) -> Any:
    """Open `url` within the timeout. The thread bounds name resolution, which a socket timeout does not."""
    outcome: list[Any] = []

    def attempt() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "resnet-sweep-platform"})  # noqa: S310 - our own address
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
