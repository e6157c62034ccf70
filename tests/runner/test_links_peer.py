"""What our rtnetlink encoder made, as pyroute2 sees it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from runner.network.bridge import bridge_name
from runner.network.modes import NetworkMode
from tests.support.boxes import Box

pyroute2 = pytest.importorskip("pyroute2", reason="needs pyroute2")

pytestmark = [pytest.mark.root, pytest.mark.peer]


def attributes(message: Any) -> dict[str, Any]:
    return dict(message["attrs"])


def test_bridge_cable_address_and_route(box: Box) -> None:
    with box.started(box.spec("sleep", "60"), network=NetworkMode.BRIDGE) as container, pyroute2.IPRoute() as host:
        [index] = host.link_lookup(ifname=bridge_name(box.root))
        [bridge] = host.get_links(index)
        assert attributes(attributes(bridge)["IFLA_LINKINFO"])["IFLA_INFO_KIND"] == "bridge"
        assert attributes(bridge)["IFLA_MTU"] == 1500
        assert bridge["flags"] & 1, "up"
        [cable] = [link for link in host.get_links() if attributes(link).get("IFLA_MASTER") == index]
        assert attributes(attributes(cable)["IFLA_LINKINFO"])["IFLA_INFO_KIND"] == "veth"
        [address] = host.get_addr(index=index, family=socket.AF_INET)
        gateway = attributes(address)["IFA_ADDRESS"]
        assert gateway == container.address.rpartition(".")[0] + ".1"
        routes = [attributes(route) for route in host.get_routes(oif=index, family=socket.AF_INET, table=254)]
        assert [route["RTA_PREFSRC"] for route in routes] == [gateway]
