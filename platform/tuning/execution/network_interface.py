"""Choose the network interface of a worker group.

The workers use loopback on one node, and the interface of Ray's address on several nodes. By default Gloo
binds the address that the host name resolves to. On Debian that is 127.0.1.1, which other nodes cannot reach.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
from ray.train.torch import TorchConfig
from typing_extensions import override

_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_LOOPBACK = "127.0.0.1"


class NodeTorchConfig(TorchConfig):
    """Ray Train's process group configuration, using the interface that connects the group's nodes."""

    @property
    @override
    def backend_cls(self) -> Any:
        base: Any = super().backend_cls

        class Backend(base):  # type: ignore[misc]
            @override
            def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
                is_one_node = len(set(worker_group.execute(_node_address))) == 1
                worker_group.execute(_use_interface, _LOOPBACK if is_one_node else None)
                super().on_start(worker_group, backend_config)

        return Backend


def interface_of(address: str) -> str | None:
    """Return the name of this node's interface that has `address`, or None."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == address for entry in addresses):
            return name
    return None


def _node_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def _use_interface(address: str | None) -> None:
    """Set the interface variables of Gloo and NCCL, unless the user has set them."""
    interface = interface_of(address or _node_address())
    for name in _VARIABLES:
        if interface is not None:
            os.environ.setdefault(name, interface)
