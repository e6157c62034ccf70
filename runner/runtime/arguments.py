"""The command line of ``tierce-runtime``: words → a verb, its options and its operands.

Read by hand: an argument parser's import costs as much as a container. The options are runc's,
which podman, conmon and containerd know by heart; those of global kind come before the verb.
As Go's parser does, ``-name`` and ``--name`` are the same, and options end at the first operand
of ``exec``.
"""

from __future__ import annotations

from image.errors import InvalidInput
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_GLOBAL: Final = {
    "root": 1, "log": 1, "log-format": 1, "rootless": 1, "cgroup-manager": 1, "criu": 1,
    "debug": 0, "systemd-cgroup": 0, "help": 0, "version": 0,
}  # fmt: skip
_SHORT_GLOBAL: Final = {"h": "help", "v": "version"}

_CREATE: Final = {
    "bundle": 1, "console-socket": 1, "pidfd-socket": 1, "pid-file": 1, "preserve-fds": 1,
    "no-pivot": 0, "no-new-keyring": 0, "no-subreaper": 0,
}  # fmt: skip
VERBS: Final[Mapping[str, Mapping[str, int]]] = {
    "create": _CREATE,
    "run": _CREATE | {"detach": 0, "keep": 0},
    "start": {},
    "state": {},
    "pause": {},
    "resume": {},
    "features": {},
    "exec": {
        "console-socket": 1, "pidfd-socket": 1, "cwd": 1, "env": 1, "tty": 0, "user": 1, "additional-gids": 1,
        "process": 1, "detach": 0, "pid-file": 1, "no-new-privs": 0, "cap": 1, "preserve-fds": 1, "cgroup": 1,
        "ignore-paused": 0, "process-label": 1, "apparmor": 1,
    },
    "kill": {"all": 0},
    "delete": {"force": 0},
    "list": {"format": 1, "quiet": 0},
    "ps": {"format": 1},
    "update": {
        "resources": 1, "cpu-period": 1, "cpu-quota": 1, "cpu-share": 1, "cpuset-cpus": 1, "cpuset-mems": 1,
        "memory": 1, "memory-reservation": 1, "memory-swap": 1, "blkio-weight": 1, "pids-limit": 1,
        "cpu-rt-period": 1, "cpu-rt-runtime": 1, "cpu-burst": 1, "cpu-idle": 1, "kernel-memory": 1,
        "kernel-memory-tcp": 1, "l3-cache-schema": 1, "mem-bw-schema": 1,
    },
    "events": {"interval": 1, "stats": 0},
    "spec": {"bundle": 1, "rootless": 0},
}  # fmt: skip
"""Each verb's options: 1 takes a value."""
_SHORT: Final = {
    "create": {"b": "bundle"},
    "run": {"b": "bundle", "d": "detach"},
    "exec": {
        "e": "env", "t": "tty", "u": "user", "g": "additional-gids", "p": "process", "d": "detach", "c": "cap",
    },
    "kill": {"a": "all"},
    "delete": {"f": "force"},
    "list": {"f": "format", "q": "quiet"},
    "ps": {"f": "format"},
    "update": {"r": "resources"},
    "spec": {"b": "bundle"},
}  # fmt: skip
_OPERANDS: Final = {
    "create": (1, 1), "run": (1, 1), "start": (1, 1), "state": (1, 1), "pause": (1, 1), "resume": (1, 1),
    "features": (0, 0), "exec": (1, None), "kill": (1, 2), "delete": (1, 1), "list": (0, 0), "ps": (1, None),
    "update": (1, 1), "events": (1, 1), "spec": (0, 0),
}  # fmt: skip
_REFUSED: Final = frozenset({"checkpoint", "restore"})
_OPTIONS_END: Final = frozenset({"exec", "ps"})


@dataclass(frozen=True, slots=True)
class Options:
    """Options by their long name, each with every value it was given ("" for a flag)."""

    given: Mapping[str, tuple[str, ...]]

    def flag(self, name: str) -> bool:
        return self.given.get(name, ("false",))[-1] in ("", "true", "1")

    def text(self, name: str, default: str = "") -> str:
        return self.given.get(name, (default,))[-1]

    def every(self, name: str) -> tuple[str, ...]:
        return self.given.get(name, ())

    def number(self, name: str) -> int | None:
        """Raises InvalidInput for what is no number."""
        if name not in self.given:
            return None
        try:
            return int(self.text(name))
        except ValueError:
            raise InvalidInput(f"--{name} {self.text(name)!r} is not a number") from None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, read."""

    verb: str
    operands: tuple[str, ...]
    options: Options
    common: Options


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Raises InvalidInput for options and numbers of operands that the verb does not take."""
    common, rest = _take(words, _GLOBAL, _SHORT_GLOBAL, ends=True)
    verb = rest[0] if rest else ""
    if not verb:
        return Arguments("", (), Options({}), common)
    if verb in _REFUSED:
        raise InvalidInput(f"{verb} is not supported by this runtime")
    if verb not in VERBS:
        raise InvalidInput(f"unknown command {verb!r} (see --help)")
    options, operands = _take(rest[1:], VERBS[verb], _SHORT.get(verb, {}), ends=verb in _OPTIONS_END)
    least, most = _OPERANDS[verb]
    if len(operands) < least or (most is not None and len(operands) > most):
        wanted = "exactly one container id" if most == 1 else "a container id" if least else "no arguments"
        raise InvalidInput(f"{verb} takes {wanted}")
    return Arguments(verb, operands, options, common)


def _take(
    words: Sequence[str], known: Mapping[str, int], short: Mapping[str, str], *, ends: bool
) -> tuple[Options, tuple[str, ...]]:
    """The options among ``words``, and the rest; with ``ends`` the first operand ends them."""
    given: dict[str, tuple[str, ...]] = {}
    operands: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--" or not word.startswith("-") or word == "-":
            operands += [word] if word != "--" else []
            if ends or word == "--":
                break
            continue
        dashed, separator, value = word.partition("=")
        name = short.get(dashed.lstrip("-"), dashed.lstrip("-"))
        if name not in known:
            raise InvalidInput(f"option {dashed} is not supported (see --help)")
        if known[name] and not separator:
            following = next(waiting, None)
            if following is None:
                raise InvalidInput(f"{dashed} needs a value")
            value = following
        given[name] = (*given.get(name, ()), value)
    return Options(given), (*operands, *waiting)
