"""Names of users and groups, looked up in the root filesystem they are used in.

Spec: dockerfile.md 1.3 (USER), 1.5 (``--chown``).
"""

from __future__ import annotations

from typing import Final

from builder.steps.tree import Owner, read_file
from image.errors import InvalidInput

_LIMIT: Final = 4 << 20
_MAX_ID: Final = 2**32 - 2


def user_owner(root: int, user: str) -> Owner:
    """Who owns the directory that WORKDIR makes for USER: the same as for ``--chown``. "" is root."""
    return chown_owner(root, user) if user else Owner()


def chown_owner(root: int, text: str) -> Owner:
    """Who ``--chown`` names: ``1`` means 1:1, a name means its primary group.

    Raises InvalidInput for a name that the root filesystem does not have.
    """
    user, colon, group = text.partition(":")
    uid, gid = _user(root, user) if user else (0, 0)
    if gid is None:
        gid = uid
    if colon and group:
        gid = _group(root, group)
    return Owner(uid, gid)


def _user(root: int, user: str) -> tuple[int, int | None]:
    """The uid, and the primary group of a name; None where a number was given."""
    if user.isdigit():
        return _number(user), None
    for fields in _records(root, "/etc/passwd", 4):
        if fields[0] == user:
            return _number(fields[2]), _number(fields[3])
    raise InvalidInput(f"unable to find user {user}: no matching entries in passwd file")


def _group(root: int, group: str) -> int:
    if group.isdigit():
        return _number(group)
    for fields in _records(root, "/etc/group", 3):
        if fields[0] == group:
            return _number(fields[2])
    raise InvalidInput(f"unable to find group {group}: no matching entries in group file")


def _number(text: str) -> int:
    if not text.isdigit() or int(text) > _MAX_ID:
        raise InvalidInput(f"invalid user or group id {text!r}: want 0 to {_MAX_ID}")
    return int(text)


def _records(root: int, path: str, fields: int) -> list[list[str]]:
    data = read_file(root, path, _LIMIT) or b""
    split = (line.split(":") for line in data.decode("utf-8", "replace").splitlines())
    return [record for record in split if len(record) >= fields]
