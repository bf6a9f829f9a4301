"""Every cluster file passes the validation of `ray up` and follows the project's rules."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", *sorted((ROOT / "deploy" / "clusters").glob("*.yaml"))]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


@pytest.fixture
def head_start(cluster: dict[str, Any]) -> str:
    (command,) = [line for line in cluster["head_start_ray_commands"] if "--head" in line]
    return command


def test_rays_validation_accepts_the_file(cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_rays_validation_rejects_a_misspelled_key(cluster: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="setup_comands"):
        validate_config(prepare_config(cluster | {"setup_comands": []}))


def test_the_dashboard_listens_on_loopback_only(head_start: str) -> None:
    assert re.findall(r"--dashboard-host=(\S+)", head_start) == ["127.0.0.1"]


def test_metrics_are_not_served_to_all_addresses_without_the_token(
    cluster: dict[str, Any], head_start: str
) -> None:
    assert "AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1" in head_start
    for kind in ("head", "worker"):
        assert "RAY_enable_metrics_collection=0" in cluster[f"{kind}_start_ray_commands"][-1]


def test_the_local_file_works_for_the_user_who_runs_it() -> None:
    from platform.clusters.cluster_file import USER

    assert yaml.safe_load((ROOT / "cluster.yaml").read_text())["auth"]["ssh_user"] == USER


def test_the_head_has_the_address_of_the_file() -> None:
    # The command reads Ray's copy of the file on the head, which is JSON on one line.
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    expression = re.search(r"sed -n '(.*?)'", cluster["head_start_ray_commands"][-1])
    assert expression is not None
    config = {
        "provider": {
            "type": "local",
            "external_head_ip": "203.0.113.1",
            "head_ip": "192.0.2.10",
            "worker_ips": [],
        }
    }
    found = subprocess.run(
        ["sed", "-n", expression[1]], input=json.dumps(config), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "192.0.2.10"


def test_the_nodes_share_a_token_and_use_it(cluster: dict[str, Any]) -> None:
    place = "~/.ray/auth_token"
    assert cluster["file_mounts"][place] == place
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"])


def test_files_that_setup_requires_are_copied(cluster: dict[str, Any]) -> None:
    target = "~/resnet-sweep-platform/"
    mounts = {
        remote.removeprefix(target): local
        for remote, local in cluster["file_mounts"].items()
        if remote.startswith(target)
    }
    assert all(remote == local for remote, local in mounts.items())
    assert all((ROOT / local).exists() for local in mounts.values())
    # The files that `make setup` and the wheel's configuration require.
    needed = {"Makefile", ".ci/setup", "pyproject.toml", "requirements.lock", "README.md", "LICENSE"}
    assert needed | {"platform", "deploy", "cpp_engine", "search_spaces"} <= set(mounts)


def test_mounts_exclude_the_environment_and_runs(cluster: dict[str, Any]) -> None:
    # Ray hashes every file below a mount at each `ray up` and when the head's monitor starts.
    mounts = {Path(local).expanduser() for local in cluster["file_mounts"].values()}
    assert not mounts & {Path(), Path(".venv"), Path(".tools"), Path("runs")}
    assert "build*/" in cluster["rsync_exclude"]


def test_packages_come_from_the_lock_file(cluster: dict[str, Any]) -> None:
    assert cluster["setup_commands"][0] == "cd ~/resnet-sweep-platform && make setup"
    installs = [line for line in cluster.get("head_setup_commands", []) if "pip install" in line]
    for line in installs:
        packages = re.findall(r"[\w-]+(?:==\S+)?(?=\s|$)", line.split("bin/python ")[1])
        assert packages
        assert all("==" in package for package in packages), line


def test_a_local_cluster_starts_its_workers(cluster: dict[str, Any], head_start: str) -> None:
    # With autoscaler v2, Ray's default since 2.50, a `local` cluster never starts a worker.
    is_local = cluster["provider"]["type"] == "local"
    assert ("RAY_enable_autoscaler_v2=0" in head_start) == is_local


@pytest.mark.parametrize("path", FILES[1:], ids=lambda path: path.stem)
def test_a_plan_can_count_the_gpus_that_a_cloud_may_start(path: Path) -> None:
    workers = yaml.safe_load(path.read_text())["available_node_types"]["spot_gpu"]
    assert workers["resources"]["GPU"] >= 1
    assert workers["max_workers"] >= 1


@pytest.mark.parametrize("path", FILES[1:], ids=lambda path: path.stem)
def test_cloud_workers_are_spot_machines_and_the_head_is_not(path: Path) -> None:
    cluster = yaml.safe_load(path.read_text())
    for name, node_type in cluster["available_node_types"].items():
        is_spot = "spot" in str(node_type["node_config"]).lower()
        assert is_spot == (name != cluster["head_node_type"]), name


def test_cloud_files_have_the_mounts_of_the_local_file() -> None:
    local, *clouds = [yaml.safe_load(path.read_text()) for path in FILES]
    assert clouds
    for cloud in clouds:
        assert cloud["file_mounts"] == local["file_mounts"]
        assert cloud["rsync_exclude"] == local["rsync_exclude"]
        assert cloud["setup_commands"] == local["setup_commands"]


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs" / "clusters.md"], ids=lambda path: path.name)
def test_every_documented_ray_command_exists(path: Path) -> None:
    from ray.scripts.scripts import cli

    # A line of code or a quotation; elsewhere "ray" begins no command.
    text = path.read_text()
    code = [line for line in text.splitlines() if line.startswith(("    ", "#"))] + re.findall(
        r"`([^`]+)`", text
    )
    named = {name for line in code for name in re.findall(r"(?<![\w/.])ray ([a-z]+(?:[-_][a-z]+)*)", line)}
    assert named
    assert named <= set(cli.commands)


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs" / "clusters.md"], ids=lambda path: path.name)
def test_every_documented_command_of_the_platform_exists(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from platform import cluster

    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cluster.main(["--help"])
    existing = set(re.findall(r"• (\w+)", capsys.readouterr().out))
    named = set(re.findall(r"python -m platform\.cluster (\w+)", path.read_text()))
    assert {"check", "up", "sweep", "fetch", "down"} <= named <= existing
