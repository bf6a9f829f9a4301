"""Start MLflow's UI on this machine, and print the addresses that compare the trials of the newest sweep.

    python -m platform.ui
    python -m platform.ui --tracking-uri sqlite:////path/mlflow.db --port 5001

For the store of an MLflow server, the addresses on that server are printed and nothing is started.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from platform.common.command_line import option, parse_command_line
from platform.common.errors import UserError, run_command
from platform.tracking.mlflow_store import newest_experiment, open_store, resolve_tracking_uri
from platform.tracking.mlflow_views import view_addresses
from platform.tracking.provenance import without_credentials


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Start MLflow's UI, on this machine only, with the newest sweep."""

    tracking_uri: Annotated[
        str | None, option("URI", default="$MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
    ] = None
    """MLflow store."""
    port: Annotated[int, option("PORT", default="5000")] = 5000
    """Port on 127.0.0.1."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.ui") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    uri = resolve_tracking_uri(arguments.tracking_uri)
    is_missing = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
    client = None if is_missing else open_store(uri)
    experiment = None if client is None else newest_experiment(client)
    if client is None or experiment is None:
        raise UserError(
            f"the MLflow store {without_credentials(uri)} has no sweep yet; run one with: make sweep"
        )
    is_server = uri.startswith(("http://", "https://"))
    server = without_credentials(uri) if is_server else f"http://127.0.0.1:{arguments.port}"
    addresses = [f"{name}: {address}" for name, address in view_addresses(client, server, experiment).items()]
    if is_server:
        print("\n".join(addresses))
        return 0
    if _is_used(arguments.port):
        raise UserError(f"port {arguments.port} is in use; give another one with --port")
    print("starting MLflow ...", file=sys.stderr)
    where = ["--host", "127.0.0.1", "--port", str(arguments.port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, *where]
    # A line for every request would scroll the addresses away.
    command += ["--uvicorn-opts", "--log-level warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not _is_used(arguments.port):
                time.sleep(0.2)
            if process.poll() is None:
                print("\n".join(addresses), flush=True)
                print("open one of these addresses in a browser; Ctrl-C ends the server", file=sys.stderr)
            return process.wait()
        except KeyboardInterrupt:
            return 0


def _is_used(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


if __name__ == "__main__":
    run_command(main)
