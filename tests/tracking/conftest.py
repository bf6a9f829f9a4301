"""MLflow stores for the tests: one SQLite file for all of them, and PostgreSQL."""

import getpass
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tracking.examples import free_port


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    """Return the URI of one database for all tests, because creating its tables takes seconds."""
    from platform.tracking.mlflow_store import open_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    open_store(uri)
    return uri


@pytest.fixture(scope="module")
def database():
    """Start PostgreSQL, which refuses to run as root, and return the URI of an empty database."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder, port = Path("/tmp") / f"sweep-postgres-{os.getpid()}", free_port()
    folder.mkdir()
    prefix = []
    if getpass.getuser() == "root":
        shutil.chown(folder, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(program, *arguments):
        subprocess.run(
            [*prefix, programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )

    data, options = folder / "data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        run("initdb", "-D", data, "-U", "sweep", "-A", "trust")
        run("pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "sweep", "mlflow")
            yield f"postgresql://sweep:secret@127.0.0.1:{port}/mlflow"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
