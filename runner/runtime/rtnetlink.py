"""Requests of rtnetlink, encoded: links, addresses and routes.

Pure. Only what starting a container needs, because importing a netlink library costs more
than starting ten containers. ``Connection`` in ``runner.network.link`` sends them; inside a
container ``store.linux.routes.route_requests`` does.

Source: Linux ``include/uapi/linux/rtnetlink.h``, ``if_link.h``.
"""

from __future__ import annotations

from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LOOPBACK_INDEX: Final = 1

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_NEWROUTE, RTM_GETROUTE = 20, 24, 26
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_NET_NS_PID = (
    1,
    3,
    4,
    10,
    12,
    18,
    19,
)
_IFLA_BRPORT_ISOLATED: Final = 33
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_OIF, _RTA_GATEWAY = 4, 5
_NESTED: Final = 0x8000
_IFF_UP: Final = 1
_AF_INET, _AF_BRIDGE, _AF_INET6 = 2, 7, 10
_IFA_F_NODAD: Final = 2


def _attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return pack("=HH", size, kind) + data + bytes(-size & 3)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(attributes))


def _request(kind: int, flags: int, body: bytes) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 0, 0) + body


def _interface(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return pack("=BxHiII", 0, 0, index, flags, change)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def new_bridge(name: str, mac: bytes, mtu: int) -> bytes:
    """A bridge, up. Fails with EEXIST when the name is taken."""
    attributes = (
        _attribute(_IFLA_IFNAME, _text(name)),
        _attribute(_IFLA_ADDRESS, mac),
        _attribute(_IFLA_MTU, pack("=I", mtu)),
        _nested(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b"bridge\0")),
    )
    return _request(_RTM_NEWLINK, _CREATE | _EXCLUSIVE, _interface(0, _IFF_UP, _IFF_UP) + b"".join(attributes))


def new_veth(name: tuple[str, int], peer: tuple[str, int], *, master: int, pid: int, mac: bytes, mtu: int) -> bytes:
    """A pair: one end up on the bridge ``master``, the other in the network namespace of ``pid``.

    ``name`` and ``peer`` are names and indexes of the two ends. With its index known, the
    requests that configure the peer can be made beforehand; the kernel heeds it only when both
    are given. ``mac`` is the peer's.
    """
    size = _attribute(_IFLA_MTU, pack("=I", mtu))
    other = (
        _interface(peer[1])
        + _attribute(_IFLA_IFNAME, _text(peer[0]))
        + _attribute(_IFLA_ADDRESS, mac)
        + size
        + _attribute(_IFLA_NET_NS_PID, pack("=I", pid))
    )
    attributes = (
        _attribute(_IFLA_IFNAME, _text(name[0])),
        _attribute(_IFLA_MASTER, pack("=I", master)),
        size,
        _nested(
            _IFLA_LINKINFO,
            _attribute(_IFLA_INFO_KIND, b"veth\0"),
            _nested(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER | _NESTED, other)),
        ),
    )
    return _request(_RTM_NEWLINK, _CREATE | _EXCLUSIVE, _interface(name[1], _IFF_UP, _IFF_UP) + b"".join(attributes))


def link_up(index: int) -> bytes:
    return _request(_RTM_NEWLINK, 0, _interface(index, _IFF_UP, _IFF_UP))


def delete_link(name: str) -> bytes:
    return _request(_RTM_DELLINK, 0, _interface() + _attribute(_IFLA_IFNAME, _text(name)))


def get_link(name: str) -> bytes:
    """Answered by a message whose ``ifi_index`` is at offset 20, then by the acknowledgement."""
    return _request(_RTM_GETLINK, 0, _interface() + _attribute(_IFLA_IFNAME, _text(name)))


def isolated_port(index: int) -> bytes:
    """A bridge's port that reaches the bridge and no other such port."""
    header = pack("=BxHiII", _AF_BRIDGE, 0, index, 0, 0)
    return _request(_RTM_SETLINK, 0, header + _nested(_IFLA_PROTINFO, _attribute(_IFLA_BRPORT_ISOLATED, b"\1")))


def _family(address: bytes) -> int:
    return _AF_INET if len(address) == 4 else _AF_INET6


def new_address(index: int, address: bytes, prefix: int, broadcast: bytes = b"") -> bytes:
    """An address of four or sixteen bytes, usable at once: nobody else can have it."""
    body = pack("=BBBBI", _family(address), prefix, _IFA_F_NODAD, 0, index)
    body += _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
    body += _attribute(_IFA_BROADCAST, broadcast) if broadcast else b""
    return _request(_RTM_NEWADDR, _CREATE | _EXCLUSIVE, body)


def default_route(index: int, gateway: bytes, *, replace: bool = False) -> bytes:
    """Fails with EEXIST where there is one, unless it is to be replaced."""
    main_table, boot_protocol, universe, unicast = 254, 3, 0, 1
    body = pack("=BBBBBBBBI", _family(gateway), 0, 0, 0, main_table, boot_protocol, universe, unicast, 0)
    body += _attribute(_RTA_GATEWAY, gateway) + _attribute(_RTA_OIF, pack("=I", index))
    return _request(_RTM_NEWROUTE, _CREATE | (_REPLACE if replace else _EXCLUSIVE), body)


def dump_routes() -> bytes:
    """Every IPv4 route, as a dump that ends with NLMSG_DONE."""
    return _request(RTM_GETROUTE, _DUMP, pack("=BBBBBBBBI", _AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
