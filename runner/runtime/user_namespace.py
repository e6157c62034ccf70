"""An ordinary user's command moves into a user namespace, where it is root.

Done once, in place, by the command itself, before it opens the store: unpacking, overlay
mounts, commits and containers then work as they do for the host's root. All commands of a user
that run at a time share one namespace (``namespace_holders``). Files of other owners belong to
the user's subordinate ids (/etc/subuid, /etc/subgid), mapped by newuidmap and newgidmap; without
these only the user's own id is mapped, as 0.

Locks (flock, SQLite) belong to files and hold between any namespaces.

Spec: user_namespaces(7), subuid(5).
"""

from __future__ import annotations

import os

from image.bare import suppress
from image.value import dataclass
from store.linux import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path
    from typing import Final, Literal

    from runner.runtime.namespace_holders import Holders

SUBUID: Final = "/etc/subuid"
SUBGID: Final = "/etc/subgid"
_INHERITED: Final = "_TIERCE_USER_NAMESPACE"
"""For commands and monitors that this process starts: they are in the namespace already."""
_SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Entered:
    """How this process got its ids. ``problem`` says why it is not better, "" when it could not be.

    ``ranges``: subordinate ids are mapped; ``single``: one id alone; ``no``: no user namespace.
    """

    how: Literal["ranges", "single", "no"]
    outer_uid: int
    problem: str = ""


_entered: list[Entered] = []
"""At most one: what ``enter`` has done to this process."""


def entered() -> Entered | None:
    """What ``enter`` did, in this process or in the one that started it; None when there was none."""
    if not _entered and (inherited := os.environ.get(_INHERITED)) and os.geteuid() == 0:
        how, _, uid = inherited.partition(":")
        _entered.append(Entered("ranges" if how == "ranges" else "single", int(uid)))
    return _entered[0] if _entered else None


def parse_ranges(text: str, name: str, uid: int) -> tuple[tuple[int, int], ...]:
    """``(start, size)`` for a user of /etc/subuid or /etc/subgid, by login name or number. Pure."""
    found: list[tuple[int, int]] = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        start, _, size = numbers.partition(":")
        if owner in (name, str(uid)) and start.isdecimal() and size.isdecimal() and int(size):
            found.append((int(start), int(size)))
    return tuple(found)


def map_arguments(outer_id: int, ranges: tuple[tuple[int, int], ...]) -> list[str]:
    """What newuidmap or newgidmap is told after the pid: own id as 0, the ranges from 1 on. Pure."""
    words = ["0", str(outer_id), "1"]
    inside = 1
    for start, size in ranges:
        words += [str(inside), str(start), str(size)]
        inside += size
    return words


def enter(environ: MutableMapping[str, str], store: Path | None = None) -> Entered:
    """Become root of a user namespace; harmless when it cannot be. Idempotent.

    Nor when nothing could be mounted there on ``store``, the directory where layers are: weaker ways
    of isolation need the process where it is.

    It is that of this user's other commands and containers while there are some. ``environ`` gets
    TIERCE_RUNTIME_DIR, because from here on the uid no longer says whose this process is. Only for
    a process with one thread.
    """
    if not _entered:
        uid = os.geteuid()
        _set_runtime_directory(environ, uid)
        _entered.append(_join_or_make(_holders(environ, uid), store, uid, os.getegid()))
        from store.owners import look_again

        look_again()
        if _entered[0].how != "no":
            environ[_INHERITED] = f"{_entered[0].how}:{uid}"
    return _entered[0]


def _set_runtime_directory(environ: MutableMapping[str, str], uid: int) -> None:
    """``$XDG_RUNTIME_DIR/tierce``, or where no session made one a private directory in /tmp."""
    if "TIERCE_RUNTIME_DIR" in environ:
        return
    place = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    if not os.access(place, os.W_OK):
        place = f"/tmp/tierce-{uid}"  # noqa: S108  # made or verified on the next lines
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
        found = os.lstat(place)
        if found.st_uid != uid or found.st_mode & 0o170077 != 0o040000:  # somebody else's, or open to others
            return
    environ["TIERCE_RUNTIME_DIR"] = f"{place}/tierce"


def hold(environ: Mapping[str, str]) -> None:
    """Let later commands join the namespace that this process was started in, as long as it lives."""
    inside = entered()
    if inside is not None and inside.how != "no" and (holders := _holders(environ, os.geteuid())) is not None:
        holders.add()


def _holders(environ: Mapping[str, str], uid: int) -> Holders | None:
    """None where there can be none, and every command is by itself: it says itself what is wrong with its directory."""
    from runner.runtime.namespace_holders import Holders  # root's commands import this module too

    with suppress(OSError):
        if root := environ.get("TIERCE_RUNTIME_DIR"):
            from pathlib import Path

            return Holders(Path(root), uid)
    return None


def _join_or_make(holders: Holders | None, store: Path | None, uid: int, gid: int) -> Entered:
    if holders is None:
        return _no_mounts(store, uid) or _make(uid, gid)
    holders.alone()
    if (no_mounts := _no_mounts(store, uid, holders)) is not None:
        found = no_mounts
    elif holders.join():
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        single = len(_read("/proc/self/uid_map").splitlines()) == 1
        found = Entered("single" if single else "ranges", uid, subordinate(uid)[1])
    else:
        found = _make(uid, gid)
    if found.how == "no":
        holders.close()
    else:
        holders.add()
    return found


def _no_mounts(store: Path | None, uid: int, holders: Holders | None = None) -> Entered | None:
    """Why a user namespace would be of no use here; None where it is."""
    from runner.runtime.mount_probe import place_of, refused

    if store is None or (holders is not None and holders.tried and holders.tried == place_of(store)):
        return None
    what, number = refused(store)
    if what:
        why = f"no {what} mounts on {store}: {os.strerror(number).lower()} (inside a container?)"
        return Entered("no", uid, _switched_off() or why)
    if holders is not None:
        holders.remember(place_of(store))
    return None


def _make(uid: int, gid: int) -> Entered:
    ranges, problem = subordinate(uid)
    wait = _Mapper(uid, gid, ranges) if ranges is not None else None
    try:
        processes.unshare(processes.CLONE_NEWUSER)
    except OSError as error:
        if wait is not None:
            wait.cancel()
        return Entered("no", uid, refusal(error))
    if wait is not None:
        problem = wait.map()
        if not problem:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            return Entered("ranges", uid)
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        return Entered("no", uid, refusal(error))
    return Entered("single", uid, problem)


def subordinate(uid: int) -> tuple[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]] | None, str]:
    """The user's uid and gid ranges when they can be used, else None and what is missing."""
    name = _login_name(uid)
    uids, gids = (parse_ranges(_read(path), name, uid) for path in (SUBUID, SUBGID))
    if not uids or not gids:
        missing = SUBUID if not uids else SUBGID
        return (
            None,
            f"{missing} has no line for {name} (as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name})",
        )
    for program in ("newuidmap", "newgidmap"):
        if _find(program) is None:
            return None, f"{program} is not installed (package uidmap)"
    return (uids, gids), ""


def refusal(error: OSError) -> str:
    """Why a user namespace could not be had, by what the system says about itself."""
    return _switched_off() or (
        f"user namespaces are refused here: {os.strerror(error.errno or 0).lower()} (inside a container?)"
    )


def _switched_off() -> str:
    """By which setting of the system; "" when by none."""
    if _read("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return "user namespaces are switched off (sysctl kernel.unprivileged_userns_clone=1)"
    if _read("/proc/sys/user/max_user_namespaces").strip() == "0":
        return "user namespaces are switched off (sysctl user.max_user_namespaces=15000)"
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return "AppArmor restricts user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
    return ""


class _Mapper:
    """A child outside of the namespace that runs newuidmap and newgidmap once this process is inside.

    They are set-user-ID programs: from inside they would have no privileges.
    """

    def __init__(
        self, uid: int, gid: int, ranges: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
    ) -> None:
        go, self._go = os.pipe2(os.O_CLOEXEC)
        self._said, say = os.pipe2(os.O_CLOEXEC)
        target = str(os.getpid())
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)
            try:
                if os.read(go, 1):
                    for program, own, of in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
                        _run_mapper(program, [target, *map_arguments(own, of)], say)
            finally:
                os._exit(0)
        os.close(go)
        os.close(say)

    def map(self) -> str:
        """Map the ids; "" or what went wrong."""
        os.write(self._go, b"g")
        return self._end()

    def cancel(self) -> None:
        self._end()

    def _end(self) -> str:
        os.close(self._go)
        with open(self._said, encoding="utf-8", errors="replace") as said:
            text = said.read()
        os.waitpid(self._pid, 0)
        return " ".join(text.split())


def _run_mapper(program: str, arguments: list[str], say: int) -> None:
    path = _find(program)
    if path is None:
        return
    actions = [(os.POSIX_SPAWN_DUP2, say, 1), (os.POSIX_SPAWN_DUP2, say, 2)]
    pid = os.posix_spawn(path, [program, *arguments], {"PATH": _SEARCH}, file_actions=actions, setsigmask=())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        import signal

        why = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        os.write(say, f" {program}: {why}".encode())


def _find(program: str) -> str | None:
    candidates = (f"{place}/{program}" for place in _SEARCH.split(":"))
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _login_name(uid: int) -> str:
    import pwd  # most commands are root's

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
