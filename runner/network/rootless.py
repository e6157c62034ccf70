"""The network of an ordinary user's container.

The default one is a process beside the container that leads outside (``outward``): each
container has the same private address, and containers reach each other by published ports. The
process starts with the container's namespace and is killed with the launcher.

Networks that the user defined are bridges, made by the same code as root's, in a network
namespace that all of the user's containers share (``user_network``). What is published there is
forwarded by a process beside the container (``forwarder``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from image.errors import NotPermitted
from runner.network import outward
from runner.network.modes import Connection, NetworkMode
from runner.network.networks import DEFAULT
from runner.network.ports import Port, Reservation
from runner.network.user_network import UserNetwork, bare_interpreter

_LOWEST_PORT: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_T = TypeVar("_T")


class UserConnection(Connection):
    """A connection of an ordinary user's."""

    _process: outward.Process | None = None
    _published: tuple[Port, ...] = ()
    _shared: UserNetwork | None = None

    def _take_places(self, ports: Sequence[Port]) -> None:
        """Choose the ports. Raises PortInUse, NotPermitted, and what networks of bridges raise."""
        problem = outward.missing()
        if problem:
            raise NotPermitted(f"cannot give the container a network: {problem}; or use --network host or none")
        _check_ports(ports)
        if all(one.network.name == DEFAULT for one in self.networking.attachments):
            self._reservation = Reservation(ports)
            self._published = self._reservation.ports
            return
        self._shared = UserNetwork(self._root)
        try:
            super()._take_places(ports)
        except BaseException:
            self._shared.close()
            raise

    def _inside(self, act: Callable[[], _T]) -> _T:
        return act() if self._shared is None else self._shared.inside(act)

    @property
    def ports(self) -> tuple[Port, ...]:
        return super().ports if self._shared is not None else self._published

    @property
    def address(self) -> str:
        if self._shared is not None or self.mode is not NetworkMode.BRIDGE:
            return super().address
        return outward.ADDRESS

    @property
    def process(self) -> int:
        return self._process.pid if self._process is not None else 0

    def attach(self, pid: int) -> None:
        """Start the process that leads outside, or in, and wait until it is ready. Raises NotPermitted."""
        super().attach(pid)
        if self._shared is not None:
            self._forward(self._shared)
        elif self.mode is NetworkMode.BRIDGE:
            if self._reservation is not None:
                self._reservation.close()  # the process binds the ports; a reservation of ours would be in its way
            self._process = outward.start(f"/proc/{pid}/ns/net", self._directory, self._published)

    def _forward(self, shared: UserNetwork) -> None:
        if self._places is None or self._reservation is None or not self.ports:
            return
        self._process = outward.Process(
            bare_interpreter("runner.network.forwarder", str(self._directory), str(len(self.ports))),
            self._directory / "forwarder.log",
            name="forwarder",
            descriptors=[shared.fd, *self._reservation.descriptors],
        )

    def close(self) -> None:
        """End the process and give the ports back. Idempotent."""
        super().close()
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._shared is not None:
            self._shared.close()
            self._shared = None


def _check_ports(ports: Sequence[Port]) -> None:
    with open(_LOWEST_PORT, encoding="ascii") as file:
        lowest = int(file.read())
    for port in ports:
        if 0 < port.host_port < lowest:
            raise NotPermitted(
                f"cannot publish port {port.host_port}: ordinary users may have ports from {lowest} on "
                f"(sysctl net.ipv4.ip_unprivileged_port_start)"
            )
