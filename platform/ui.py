"""Start MLflow's UI on this machine, and print the address that compares the trials of the newest sweep.

    python -m platform.ui
    python -m platform.ui --tracking-uri sqlite:////path/mlflow.db --port 5001

For the store of an MLflow server, the address on that server is printed and nothing is started.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
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
    for name, address in view_addresses(client, server, experiment).items():
        print(f"{name}: {address}", flush=True)
    if is_server:
        return 0
    print("open one of these addresses in a browser; Ctrl-C ends the server", file=sys.stderr)
    where = ["--host", "127.0.0.1", "--port", str(arguments.port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, *where]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    run_command(main)
