"""A container's own /etc/passwd and /etc/group, and who ``user[:group]`` is by them. Part of ``child``."""

from __future__ import annotations

import posix

from runner.runtime.child_root import Refused
from store.linux import paths

_S_IFMT, _S_IFREG = 0o170000, 0o100000
_LARGEST_ACCOUNT_FILE = 16 << 20
_LARGEST_ID = 2**31 - 1


def read_accounts(path: str) -> bytes:
    """The file's content, or nothing. By now / is the container's, so that any link stays inside.

    Only a regular file is read: a fifo would make us wait for ever.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return b""
    try:
        if posix.fstat(fd).st_mode & _S_IFMT != _S_IFREG:
            return b""
        chunks = []
        size = 0
        while size < _LARGEST_ACCOUNT_FILE and (chunk := posix.read(fd, 1 << 16)):
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)
    except OSError:
        return b""
    finally:
        posix.close(fd)


def users(passwd: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """Name, uid, gid and home of each well-formed line."""
    found = []
    for line in passwd.splitlines():
        fields = line.strip().split(b":")
        if len(fields) >= 4 and fields[2].isdigit() and fields[3].isdigit():
            found.append((fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else b""))
    return found


def group_members(group: bytes) -> list[tuple[bytes, int, list[bytes]]]:
    """Name, gid and members of each well-formed line."""
    found = []
    for line in group.splitlines():
        fields = line.strip().split(b":")
        if len(fields) >= 3 and fields[2].isdigit():
            found.append((fields[0], int(fields[2]), fields[3].split(b",") if len(fields) > 3 else []))
    return found


def account_in(root: int, user: str) -> tuple[int, int, tuple[int, ...], bytes]:
    """What ``resolve_user`` tells of ``user[:group]`` by the files below an open directory. Raises Refused."""
    return resolve_user(user.encode(), (), _read_in(root, b"etc/passwd"), _read_in(root, b"etc/group"))


def _read_in(root: int, path: bytes) -> bytes:
    try:
        fd = paths.openat2(root, path, paths.O_PATH, resolve=paths.RESOLVE_IN_ROOT)
    except OSError:
        return b""
    try:
        return read_accounts(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)


def resolve_user(
    text: bytes, extra: tuple[bytes, ...], passwd: bytes, group: bytes
) -> tuple[int, int, tuple[int, ...], bytes]:
    """uid, gid, supplementary groups and home for ``user[:group]``, as docker finds them.

    A number is always an id and needs no entry. Without a group the user's own groups
    count, with one they do not. The main group is a supplementary one as well.
    """
    user_text, _, group_text = text.partition(b":")
    uid, gid, home, name = _user(user_text, passwd)
    supplementary: list[int] = []
    if group_text:
        gid = _group(group_text, group)
    elif name:
        supplementary = [number for _, number, members in group_members(group) if name in members]
    supplementary += [_group(item, group) for item in extra]
    return uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home or b"/"


def _user(text: bytes, passwd: bytes) -> tuple[int, int, bytes, bytes]:
    wanted = _id(text or b"0")
    for name, uid, gid, home in users(passwd):
        if (uid == wanted) if wanted is not None else (name == text):
            return uid, gid, home, name
    if wanted is None:
        shown = text.decode("utf-8", "replace")
        raise Refused("user", f"unable to find user {shown}: no matching entries in passwd file")
    return wanted, 0, b"/", b""


def _group(text: bytes, group: bytes) -> int:
    wanted = _id(text)
    if wanted is not None:
        return wanted
    for name, gid, _ in group_members(group):
        if name == text:
            return gid
    shown = text.decode("utf-8", "replace")
    raise Refused("user", f"unable to find group {shown}: no matching entries in group file")


def _id(text: bytes) -> int | None:
    """A number in range, or None for a name."""
    if not text.isdigit():
        return None
    number = int(text[:20])
    if number > _LARGEST_ID:
        raise Refused("user", f"uids and gids must be in range 0-{_LARGEST_ID}")
    return number
