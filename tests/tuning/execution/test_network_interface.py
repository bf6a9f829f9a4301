"""The network interface of a worker group."""

import psutil

from platform.tuning.execution.network_interface import interface_of


def test_interface_of_an_address() -> None:
    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    assert "127.0.0.1" in {entry.address for entry in psutil.net_if_addrs()[loopback]}
    assert interface_of("192.0.2.1") is None
