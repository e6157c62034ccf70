"""``--device`` and ``--device-cgroup-rule``: words → nodes to make and rules that allow them.

Source: docker/cli 28 ``opts/parse.go``, moby 28 ``oci/devices_linux.go``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from image.errors import InvalidInput
from image.value import dataclass
from runner.runtime.spec import Device, DeviceRule, Throttle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from runner.runtime.spec import ThrottleKind

_RULE: Final = r"(?P<type>[acb]) (?P<major>\d+|\*):(?P<minor>\d+|\*) (?P<access>[rwm]{1,3})"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """``host`` is a node of the host or a directory of nodes."""

    host: str
    container: str
    access: str = "rwm"


def parse_device(text: str) -> DeviceRequest:
    """``HOST[:CONTAINER][:rwm]``. Raises InvalidInput."""
    parts = text.split(":")
    host, container, access = parts[0], parts[0], "rwm"
    match parts[1:]:
        case []:
            pass
        case [word]:
            container, access = (host, word) if _is_access(word) else (word, access)
        case [path, word] if _is_access(word):
            container, access = path or host, word
        case _:
            raise InvalidInput(f"invalid device specification: {text!r}, want HOST[:CONTAINER][:rwm]")
    import re

    if re.fullmatch(r"[\w.-]+/[\w.-]+=.+", text):
        raise InvalidInput(f"device {text!r}: devices of the container device interface (CDI) are not supported")
    for path in (host, container):
        if not path.startswith("/"):
            raise InvalidInput(f"invalid device {text!r}: {path!r} is not an absolute path")
    return DeviceRequest(host, os.path.normpath(container), access)


def _is_access(word: str) -> bool:
    return bool(word) and set(word) <= set("rwm") and len(set(word)) == len(word)


def parse_device_rule(text: str) -> DeviceRule:
    """``TYPE MAJOR:MINOR ACCESS`` such as ``c 10:* rw``. Raises InvalidInput."""
    import re

    found = re.fullmatch(_RULE, text)
    if found is None:
        raise InvalidInput(f"invalid device cgroup format {text!r}: want TYPE MAJOR:MINOR ACCESS such as 'c 10:* rw'")
    major, minor = (None if found[name] == "*" else int(found[name]) for name in ("major", "minor"))
    return DeviceRule(allow=True, type=found["type"], major=major, minor=minor, access=found["access"])


def find_devices(requests: Iterable[DeviceRequest]) -> tuple[tuple[Device, DeviceRule], ...]:
    """Look the devices up on this host, directories with all below them. Raises InvalidInput."""
    return tuple(pair for request in requests for pair in _find(request))


def _find(request: DeviceRequest) -> list[tuple[Device, DeviceRule]]:
    path = os.path.realpath(request.host)
    if os.path.isdir(path):
        found = []
        for directory, _, names in os.walk(path):
            for name in sorted(names):
                inside = os.path.join(request.container, os.path.relpath(os.path.join(directory, name), path))
                found += _node(os.path.join(directory, name), inside, request.access)
        return found
    found = _node(path, request.container, request.access)
    if not found:
        raise InvalidInput(f"cannot add device {request.host}: not a device node")
    return found


def _node(path: str, inside: str, access: str) -> list[tuple[Device, DeviceRule]]:
    facts = _facts(path)
    kind = "c" if stat.S_ISCHR(facts.st_mode) else "b" if stat.S_ISBLK(facts.st_mode) else ""
    if not kind:
        return []
    major, minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    device = Device(inside, kind, major, minor, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)
    return [(device, DeviceRule(allow=True, type=kind, major=major, minor=minor, access=access))]


def _facts(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise InvalidInput(f"cannot add device {path}: {os.strerror(error.errno or 0).lower()}") from error


def find_throttle(kind: ThrottleKind, text: str, rate: int) -> Throttle:
    """``rate`` for the block device whose path ``text`` is. Raises InvalidInput."""
    facts = _facts(os.path.realpath(text))
    if not stat.S_ISBLK(facts.st_mode):
        raise InvalidInput(f"cannot limit {text}: not a block device")
    return Throttle(kind, os.major(facts.st_rdev), os.minor(facts.st_rdev), rate)
