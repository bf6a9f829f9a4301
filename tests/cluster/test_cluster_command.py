"""`python -m platform.cluster check` against prepared faults, with a fake ssh that runs its script here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from platform import cluster as command
from platform.common.errors import UsageError, UserError
from platform.tracking.sweep_folder import SweepFolder
from tests.sweep.examples import TINY

ROOT = Path(__file__).parents[2]

Change = Callable[[dict], None]


# Without the options and the host, the arguments of ssh are a shell command.
_RUN_HERE = """while true; do
    case "$1" in -o | -i | -l) shift 2 ;; -*) shift ;; *) shift; break ;; esac
done
cd "$HOME"
exec sh -c "$*"
"""


class Lab:
    """A home folder with a key and a token, tools on PATH, and a fake `ssh`.

    The fake runs the command that it gets as if it were on the other machine, with the tools of `bin`.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.home, self.bin = path, path / "home", path / "bin"
        self.monkeypatch = monkeypatch
        (self.home / ".ssh").mkdir(parents=True)
        self.bin.mkdir()
        self.key = self.home / ".ssh/id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.token = self.home / ".ray/auth_token"
        self.token.parent.mkdir()
        self.token.touch(mode=0o600)
        self.token.write_text("token")
        self.tool("ssh", f'export PATH="{self.bin}:$PATH"\n{_RUN_HERE}')
        self.tool("c++", "echo c++ 12")
        self.tool("rsync")
        self.tool("make")
        # The sweeps and clusters of other tests are invisible: the script finds processes with grep.
        self.tool("grep", "exit 1")
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        # Other tests may listen on the fixed ports.
        self.limit_ports()

    def tool(self, name: str, script: str = "") -> None:
        """Put a program on the PATH of this machine and of the others."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def limit_ports(self, *ports: int) -> None:
        self.monkeypatch.setattr("platform.clusters.probe.RAY_PORTS", dict.fromkeys(ports, "the head (GCS)"))
        self.monkeypatch.setattr(
            "platform.clusters.node_checks.RAY_PORTS", dict.fromkeys(ports, "the head (GCS)")
        )

    def file(self, change: Change = lambda _: None) -> str:
        config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        change(config)
        path = self.path / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is missing (apt-get install openssh-client)")
    return Lab(tmp_path, monkeypatch)


@pytest.fixture
def check(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(change: Change = lambda _: None) -> tuple[int, str]:
        code = command.main(["check", lab.file(change)])
        return code, capsys.readouterr().out

    return run


def three_machines(config: dict) -> None:
    config["provider"] |= {"head_ip": "192.0.2.10", "worker_ips": ["192.0.2.11", "192.0.2.12"]}


def test_a_prepared_machine_passes(check):
    code, out = check()
    assert (code, out.splitlines()[-1]) == (0, "no problem found"), out
    assert "127.0.0.1  head" in out
    assert sys.version.split()[0].rpartition(".")[0] in out


def test_nothing_is_written_on_the_machines(lab, check):
    before = sorted(lab.home.rglob("*"))
    check()
    assert sorted(lab.home.rglob("*")) == before


def fault_permission_denied(lab: Lab) -> None:
    lab.tool("ssh", "echo 'me@127.0.0.1: Permission denied (publickey).' >&2; exit 255")


def fault_no_server(lab: Lab) -> None:
    lab.tool("ssh", "echo 'ssh: connect to host 127.0.0.1 port 22: Connection refused' >&2; exit 255")


def fault_no_key(lab: Lab) -> None:
    lab.key.unlink()


def fault_open_key(lab: Lab) -> None:
    lab.key.chmod(0o644)


def fault_passphrase(lab: Lab) -> None:
    lab.key.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", lab.key], check=True)


def fault_no_token(lab: Lab) -> None:
    lab.token.unlink()


def fault_open_token(lab: Lab) -> None:
    lab.token.chmod(0o644)


def fault_old_python(lab: Lab) -> None:
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        lab.tool(name, 'case "$2" in *version_info\\[*) echo 3.9.2 ;; *) exit 1 ;; esac')


def fault_no_space(lab: Lab) -> None:
    lab.tool("df", "echo header; echo /dev/x 9 9 1048576 9 /")


def fault_small_memory(lab: Lab) -> None:
    lab.tool("awk", 'case "$1" in *MemAvailable*) echo 1048576 ;; *) exec /usr/bin/awk "$@" ;; esac')


def fault_clock(lab: Lab) -> None:
    lab.tool("date", "echo $(($(/bin/date +%s) - 300)).0")


def fault_driver(lab: Lab) -> None:
    lab.tool("nvidia-smi", "echo NVIDIA L4, 470.82.01")


FAULTS = {
    fault_permission_denied: ("ssh does not accept the key", ">> ~/.ssh/authorized_keys"),
    fault_no_server: ("no ssh server answers", "apt-get install openssh-server"),
    fault_no_key: ("id_ed25519 does not exist", "ssh-keygen -t ed25519"),
    fault_open_key: ("other users can read the ssh key", "chmod 600"),
    fault_passphrase: ("has a passphrase", "ssh-keygen -t ed25519"),
    fault_no_token: ("~/.ray/auth_token does not exist", "ray get-auth-token --generate"),
    fault_open_token: ("other users can read ~/.ray/auth_token", "chmod 600 ~/.ray/auth_token"),
    fault_old_python: ("Python 3.11 or newer is required, found 3.9.2", "apt-get install python3"),
    fault_no_space: ("1.0 GB are free in the home folder, 10 GB are required", "du -x"),
    fault_clock: ("s behind this one's", "timedatectl set-ntp true"),
    fault_driver: ("driver 470.82.01 is too old", "install driver"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.removeprefix("fault_"))
def test_a_fault_is_named_with_its_fix(lab, check, fault):
    fault(lab)
    code, out = check()
    problem, fix = FAULTS[fault]
    assert code == 1
    assert problem in out
    assert fix in out[out.index(problem) :]
    assert out.count("error: ") == 1, out


def test_little_memory_is_a_warning(lab, check):
    fault_small_memory(lab)
    code, out = check()
    assert code == 0
    assert "warning: 127.0.0.1: 1.0 GB of memory are free" in out


def test_missing_tools_are_listed_with_their_packages(lab, check):
    lab.tool("sh", f"PATH={lab.path}/empty; export PATH; exec /bin/sh")
    (lab.path / "empty").mkdir()
    tools = (
        "awk",
        "cat",
        "date",
        "df",
        "getent",
        "grep",
        "id",
        "nproc",
        "stat",
        "timeout",
        "tr",
        "uname",
        "bash",
    )
    for name in (*tools, "python3"):
        (lab.path / "empty" / name).symlink_to(shutil.which(name))
    code, out = check()
    assert code == 1
    assert "missing: make, rsync, a C++ compiler" in out
    assert "sudo apt-get install make rsync g++" in out


def test_a_port_in_use_is_found_before_ray_waits_for_it(lab, check):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        lab.limit_ports(port)
        code, out = check()
    assert code == 1
    assert f"port {port}, of the head (GCS), is in use by another program" in out


def test_all_faults_are_found_at_once_on_all_machines_in_parallel(lab, check):
    lab.token.unlink()
    lab.tool(
        "ssh",
        'sleep 2; case "$*" in *192.0.2.11*) echo "Permission denied (publickey)." ;; '
        '*) echo "ssh: connect to host x port 22: Connection timed out" ;; esac >&2; exit 255',
    )
    started_s = time.monotonic()
    code, out = check(three_machines)
    assert time.monotonic() - started_s < 5.5  # one after another: 6 s
    assert code == 1
    assert out.count("\nerror: ") == 4
    assert "Connection timed out" in out
    assert "ssh-copy-id" in out
    assert "auth_token does not exist" in out


def test_workers_need_an_address_of_the_head(check):
    def change(config: dict) -> None:
        config["provider"]["worker_ips"] = ["192.0.2.11"]

    code, out = check(change)
    assert code == 1
    assert "workers cannot reach the head at head_ip 127.0.0.1" in out


def test_workers_need_a_key_in_the_file(check):
    def change(config: dict) -> None:
        three_machines(config)
        del config["auth"]["ssh_private_key"]

    assert "auth.ssh_private_key is missing" in check(change)[1]


def test_a_firewall_between_the_machines_is_found(lab, check):
    lab.tool("timeout", 'case "$*" in *192.0.2.*) exit 124 ;; *) shift; exec "$@" ;; esac')
    code, out = check(three_machines)
    assert code == 1
    assert "no connection to 192.0.2.10:10002, 192.0.2.10:6379" in out
    assert "ufw allow from 192.0.2.11" in out


def test_different_python_versions_are_an_error(lab, check):
    older = lab.path / "older"
    older.mkdir()
    lab.tool("python-of-a-worker", "echo 3.11.1")
    (lab.bin / "python-of-a-worker").rename(older / "python3")
    lab.tool("ssh", f'case "$*" in *192.0.2.12*) PATH="{older}:$PATH" ;; esac\nexport PATH\n{_RUN_HERE}')
    code, out = check(three_machines)
    assert code == 1
    assert "error: all machines: Ray needs the same Python version on all, patch included; got" in out
    assert "3.11.1" in out


def test_a_misspelled_key_of_the_file_is_named(check):
    code, out = check(lambda config: config.update(setup_comands=[]))
    assert code == 1
    assert "Ray does not accept it" in out
    assert "setup_comands" in out


def test_a_mount_that_does_not_exist_is_named(check):
    code, out = check(lambda config: config["file_mounts"].update({"~/data": "no-such-folder"}))
    assert (code, "file_mounts: no-such-folder does not exist" in out) == (1, True)


def test_placeholders_of_the_cloud_files_are_errors(lab, check, capsys):
    shutil.copy(ROOT / "deploy/clusters/aws.yaml", lab.path / "aws.yaml")
    assert command.main(["check", str(lab.path / "aws.yaml")]) == 1
    assert "ami-00000000000000000 is a placeholder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster_name: [", "not valid YAML"),
        ("- x", "must be a mapping"),
        (None, "cannot read the cluster file"),
    ],
)
def test_a_file_that_is_no_cluster_file(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        command.main(["check", str(path)])


def test_a_running_sweep_stops_up_before_ray(lab, monkeypatch):
    monkeypatch.setattr(command, "call_ray", lambda *_: pytest.fail("Ray was called"))
    (lab.bin / "grep").unlink()
    # Its command line contains that of a sweep.
    program = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program, "-m", "platform.sweep", "x"])
    try:
        with pytest.raises(UserError, match=rf"a sweep is running .*{process.pid}.* stop it with: python -m"):
            command.main(["up", lab.file()])
    finally:
        process.kill()
        process.wait()


def test_up_starts_nothing_after_an_error(lab, monkeypatch):
    monkeypatch.setattr(command, "call_ray", lambda *_: pytest.fail("Ray was called"))
    lab.token.unlink()
    with pytest.raises(UserError, match="nothing was started"):
        command.main(["up", lab.file()])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "resnet18_cfar"], "resnet18_cifar"),
        (["sweep", "resnet18_cifar", "--set", "base.epoch=3"], "did you mean 'epochs'"),
        (["sweep", "--quick"], "give a search space"),
        (["sweep", "--cluster"], "needs the path"),
    ],
    ids=str,
)
def test_a_wrong_command_line_is_refused_here(lab, words, message):
    with pytest.raises(UsageError, match=message):
        command.main(words)


def test_an_unreachable_head_is_named_with_the_check(lab):
    fault_no_server(lab)
    with pytest.raises(
        UserError, match=r"no ssh connection to 127\.0\.0\.1 .*python -m platform\.cluster check"
    ):
        command.main(["fetch", lab.file()])


def test_ray_gets_the_name_of_the_user(lab, monkeypatch):
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    from platform.clusters.cluster_file import read_cluster

    cluster = read_cluster(Path(lab.file()))
    assert cluster.user == "somebody"
    assert yaml.safe_load(cluster.for_ray().read_text())["auth"]["ssh_user"] == "somebody"
    named = read_cluster(Path(lab.file(lambda config: config["auth"].update(ssh_user="other"))))
    assert named.for_ray() == Path(lab.path / "cluster.yaml")


@pytest.fixture
def head(lab: Lab) -> Path:
    """The project on the head, with a running sweep and an MLflow store."""
    if shutil.which("rsync", path="/usr/bin:/bin") is None:
        pytest.skip("rsync is missing (apt-get install rsync)")
    (lab.bin / "rsync").unlink()
    project = lab.home / "resnet-sweep-platform"
    (project / ".venv/bin").mkdir(parents=True)
    python = project / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    sweep = project / "runs/tiny-20260301-120000"
    sweep.mkdir(parents=True)
    started = "2026-03-01T12:00:00+00:00"
    state = {
        "state": "running",
        "pid": 2**30,
        "host": "the-head",
        "started_at": started,
        "running_since": started,
    }
    (sweep / "state.json").write_text(json.dumps(state))
    store = f"sqlite:///{project}/mlflow.db"
    (sweep / "mlflow.json").write_text(json.dumps({"tracking_uri": store, "opened": True}))
    (project / "mlartifacts/tiny").mkdir(parents=True)
    (project / "mlartifacts/tiny/note.txt").write_text("an artifact")
    with closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location VARCHAR(256))")
        connection.execute(
            "INSERT INTO experiments VALUES (1, ?)", ((project / "mlartifacts/tiny").as_uri(),)
        )
    return project


def test_fetched_results_have_the_paths_of_this_machine(lab, head, tmp_path, capsys):
    runs = tmp_path / "fetched here"
    for expected in ("1 new or changed sweeps", "0 new or changed sweeps"):
        command.main(["fetch", lab.file(), "--runs", str(runs)])
        assert expected in capsys.readouterr().out
    database = runs / "mlflow-resnet-sweep/mlflow.db"
    folder = SweepFolder(runs / "tiny-20260301-120000")
    record = json.loads((folder.path / "mlflow.json").read_text())
    assert record == {"tracking_uri": f"sqlite:///{database}", "opened": True}
    with closing(sqlite3.connect(database)) as connection:
        [(location,)] = connection.execute("SELECT artifact_location FROM experiments")
    artifacts = Path(unquote(location.removeprefix("file://")))
    assert artifacts.is_relative_to(runs)
    assert (artifacts / "note.txt").read_text() == "an artifact"
    # The store of the head is unchanged, and the sweep that runs there is not interrupted.
    assert json.loads((head / "runs/tiny-20260301-120000/mlflow.json").read_text()) != record
    assert folder.get_state() == "running"


def test_a_space_is_copied_to_the_head_before_its_sweep_starts(lab, head, monkeypatch):
    (head / "search_spaces").mkdir()
    space = lab.path / "mine.yaml"
    space.write_text(TINY)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr("platform.clusters.remote.stream_on_head", lambda _, *words: calls.append(words) or 0)
    assert command.main(["sweep", "--cluster", lab.file(), str(space), "--set", "trials=3"]) == 0
    assert calls == [("sweep", "search_spaces/mine.yaml", "--set", "trials=3")]
    assert (head / "search_spaces/mine.yaml").read_text() == TINY
