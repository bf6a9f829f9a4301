"""Read a cluster file of `ray up`, and connect to its machines as Ray does."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import platform
from platform.common.atomic import write_text
from platform.common.errors import UsageError, UserError, did_you_mean

PROJECT = Path(platform.__path__[0]).resolve().parent
"""The folder with `platform/`; the mounts of a cluster file are relative to it."""

REMOTE = "~/resnet-sweep-platform"
"""The project on every machine."""

TOKEN = Path("~/.ray/auth_token")
USER = "$USER"
"""Value of `ssh_user` that stands for the current user; Ray itself expands no variables."""

_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Cluster:
    """A cluster file."""

    path: Path
    config: Mapping[str, Any]
    """Its content, with the name of the current user for `$USER`."""
    written: Mapping[str, Any]
    """Its content as it is."""

    @property
    def name(self) -> str:
        return str(self.config.get("cluster_name", "default"))

    @property
    def is_local(self) -> bool:
        """Whether the file lists existing machines; otherwise a cloud provides them."""
        return self.provider.get("type") == "local"

    @property
    def workers(self) -> list[str]:
        """The addresses of the workers of a local cluster."""
        addresses = self.provider.get("worker_ips")
        return [str(address) for address in addresses] if isinstance(addresses, list) else []

    @property
    def user(self) -> str:
        return str(self._auth.get("ssh_user") or "")

    @property
    def key(self) -> Path | None:
        """The private key, or None for the default ones of ssh."""
        key = self._auth.get("ssh_private_key")
        return None if key is None else Path(key).expanduser()

    @property
    def _auth(self) -> Mapping[str, Any]:
        return self._section("auth")

    @property
    def provider(self) -> Mapping[str, Any]:
        """The section `provider`; empty if it is missing or no mapping."""
        return self._section("provider")

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self.config.get(name)
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def head(self) -> str:
        """The address by which this machine reaches the head.

        Raises:
            UserError: the cloud has no running head.
        """
        if self.is_local:
            return str(self.provider.get("external_head_ip") or self.internal_head)
        call = [ray_command(), "get-head-ip", str(self.for_ray())]
        found = subprocess.run(call, check=False, capture_output=True, text=True, cwd=PROJECT)
        if found.returncode != 0:
            raise UserError(
                f"the cluster {self.name} has no running head; start it with: {command('up', self)}"
            )
        return found.stdout.split()[-1]

    @property
    def internal_head(self) -> str:
        """The address by which the workers of a local cluster reach the head."""
        return str(self.provider.get("head_ip") or "")

    def problem(self) -> str | None:
        """Return the first reason for which Ray refuses the file, or None."""
        import contextlib
        import io

        import click
        from jsonschema import ValidationError
        from ray.autoscaler._private.util import prepare_config, validate_config

        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                validate_config(prepare_config(dict(self.config)))
        except ValidationError as error:
            where = ".".join(map(str, error.absolute_path))
            return f"{f'{where}: ' if where else ''}{error.message[:300]}"
        except (click.ClickException, SystemExit):
            return " ".join(said.getvalue().split())[:300] or "Ray refuses it"
        except Exception as error:  # noqa: BLE001 - Ray raises whatever an unexpected value leads to
            return f"{type(error).__name__}: {error}"[:300]
        return None

    def for_ray(self) -> Path:
        """Return the path of the file for Ray's commands: a completed copy if it contains `$USER`."""
        if self.config == self.written:
            return self.path.absolute()
        path = Path("~/.cache/resnet-sweep-platform/clusters").expanduser() / self.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            path,
            f"# Written by platform.cluster from {self.path.absolute()}\n{yaml.safe_dump(dict(self.config))}",
        )
        return path

    def ssh_options(self) -> list[str]:
        """Return the options with which Ray calls ssh, without its shared connections; never asks."""
        from ray.autoscaler._private.command_runner import SSHOptions

        key = self.key
        if not self.is_local and key is None:
            from ray.autoscaler.sdk import bootstrap_config

            key = Path(bootstrap_config(dict(self.config))["auth"]["ssh_private_key"]).expanduser()
        options: Any = SSHOptions(  # type: ignore[no-untyped-call]
            None if key is None else str(key),
            ProxyCommand=self._auth.get("ssh_proxy_command"),
            BatchMode="yes",
            LogLevel="ERROR",
        )
        found: list[str] = options.to_ssh_options_list(timeout=_CONNECT_TIMEOUT_S)
        return found

    def ssh(self, host: str, *words: str) -> list[str]:
        """Return the command that runs a shell command on a machine."""
        return ["ssh", *self.ssh_options(), f"{self.user}@{host}", *words]


def read_cluster(path: Path | None) -> Cluster:
    """Read a cluster file.

    Args:
        path: the file; None for `cluster.yaml` here or else in the project's folder.

    Raises:
        UsageError: there is no such file, or it is not YAML.
    """
    if path is None:
        path = next((p for p in (Path("cluster.yaml"), PROJECT / "cluster.yaml") if p.exists()), None)
        if path is None:
            raise UsageError("there is no cluster.yaml here; give the path of a cluster file")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        near = did_you_mean(path.name, [each.name for each in path.parent.glob("*.yaml")])
        raise UsageError(f"cannot read the cluster file {path}{near}: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(config, dict):
        raise UsageError(
            f"{path} must be a mapping with cluster_name, provider, ..., as cluster.yaml of the project"
        )
    auth = config.get("auth")
    completed = config
    if isinstance(auth, dict) and auth.get("ssh_user", USER) == USER:
        completed = {**config, "auth": {**auth, "ssh_user": getpass.getuser()}}
    return Cluster(path, completed, config)


def command(name: str, cluster: Cluster, *words: str) -> str:
    """Return a command of this module for the user to copy."""
    is_default = cluster.path.resolve() in (Path("cluster.yaml").resolve(), PROJECT / "cluster.yaml")
    option = [] if is_default else [*(["--cluster"] if name == "sweep" else []), str(cluster.path)]
    return " ".join(["python -m platform.cluster", name, *option, *words])


def ray_command() -> str:
    """Return the path of Ray's command."""
    return str(Path(sys.executable).with_name("ray"))


def call_ray(cluster: Cluster, *words: str) -> int:
    """Run a command of Ray with the cluster's file as its last argument; return its exit code."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "RAY_USAGE_STATS_ENABLED": "0"}
    if cluster.is_local:
        # cluster.yaml decides; without the variable, Ray prints a message about its default.
        environment |= {"RAY_UP_enable_autoscaler_v2": "0"}
    call: Sequence[str] = [ray_command(), *words, str(cluster.for_ray())]
    return subprocess.run(call, check=False, cwd=PROJECT, env=environment).returncode
