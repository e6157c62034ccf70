"""How a container is kept: restarts, logs, health, its end. Values and docker's words for them; pure."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence

from image.config import ContainerConfig
from image.descriptor import no_annotations
from image.errors import InvalidInput
from image.value import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Match
    from typing import Final

DRIVERS: Final = ("json-file", "local", "none")
_LOG_OPTIONS: Final = ("max-size", "max-file", "mode", "compress", "max-buffer-size", "labels", "env", "tag")
_LOG_SIZE: Final = r"(?i)(\d+(?:\.\d+)?)\s*([kmg]?)b?"
_OF_NAMES: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
DEFAULT_STOP_TIMEOUT_S: Final = 10
LOCAL_SIZE, LOCAL_FILES = 20 << 20, 5


@dataclass(frozen=True, slots=True)
class Health:
    """What to ask, and how often. Durations in nanoseconds."""

    test: tuple[str, ...]
    interval_ns: int = 30 * 10**9
    timeout_ns: int = 30 * 10**9
    start_period_ns: int = 0
    start_interval_ns: int = 5 * 10**9
    retries: int = 3


@dataclass(frozen=True, slots=True)
class HealthFlags:
    """``--health-*`` as given; None where not. ``off`` is ``--no-healthcheck``."""

    cmd: str | None = None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0
    off: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """As the user wrote it. ``stop_timeout_s`` -1 waits for ever, None is docker's ten seconds."""

    restart: str = "no"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    labels: Mapping[str, str] = field(default_factory=no_annotations, hash=False)
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    health: HealthFlags = HealthFlags()
    remove: bool = False


def parse_restart(text: str) -> tuple[str, int]:
    """``no``, ``always``, ``unless-stopped`` or ``on-failure[:N]``; the name and N, 0 for no limit. Raises InvalidInput."""
    name, colon, count = text.partition(":")
    if name not in ("no", "", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(f"invalid restart policy {text!r}: use no, always, unless-stopped or on-failure[:N]")
    if colon and (name != "on-failure" or not count.isdigit()):
        raise InvalidInput(f"invalid restart policy {text!r}: only on-failure takes a number of attempts")
    return name or "no", int(count or 0)


def wants_restart(policy: str, code: int, restarts: int) -> bool:
    """Whether a container that ended with ``code`` by itself starts again, after so many restarts."""
    name, most = parse_restart(policy)
    if name == "on-failure":
        return code != 0 and (most == 0 or restarts < most)
    return name in ("always", "unless-stopped")


def check_policy(policy: Policy) -> Policy:
    """Raises InvalidInput for words that mean nothing, and for contradictions."""
    name, _ = parse_restart(policy.restart)
    if policy.remove and name != "no":
        raise InvalidInput("conflicting options: --rm and --restart")
    log_limits(policy)
    if policy.stop_signal:
        signal_number(policy.stop_signal)
    return policy


def log_limits(policy: Policy) -> tuple[int, int]:
    """``(max_size, max_file)`` in bytes and files; size 0 is no limit. Raises InvalidInput."""
    if policy.log_driver not in DRIVERS:
        raise InvalidInput(f"log driver {policy.log_driver!r} is not supported: there are {', '.join(DRIVERS)}")
    for key in policy.log_options:
        if key not in _LOG_OPTIONS:
            raise InvalidInput(f"unknown log opt {key!r} for log driver {policy.log_driver}")
    local = policy.log_driver == "local"
    size_text = policy.log_options.get("max-size", "")
    match = _log_size(size_text)
    if size_text not in ("", "-1") and match is None:
        raise InvalidInput(f"invalid log opt max-size={size_text}: want a size such as 10m")
    files_text = policy.log_options.get("max-file", str(LOCAL_FILES) if local else "1")
    if not files_text.isdigit() or int(files_text) < 1:
        raise InvalidInput(f"invalid log opt max-file={files_text}: want a number of at least 1")
    size = LOCAL_SIZE if local else 0
    if match is not None:
        size = int(float(match[1]) * 1024 ** " kmg".index(match[2].lower() or " "))
    elif size_text == "-1":
        size = 0
    if int(files_text) > 1 and not size:
        raise InvalidInput("log opt max-file needs max-size")
    return size, int(files_text)


def signal_number(text: str) -> int:
    """``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3``. Raises InvalidInput."""
    if text.isdigit() and 0 < int(text) <= 64:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if plus and base == "RTMIN" and offset.isdigit() and int(offset) <= 30:
        return signal.SIGRTMIN + int(offset)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise InvalidInput(f"invalid signal: {text}") from None


def stop_signal(policy: Policy, config: ContainerConfig) -> str:
    """The user's, else the image's, else TERM."""
    return policy.stop_signal or config.stop_signal or "SIGTERM"


def health(policy: Policy, config: ContainerConfig) -> Health | None:
    """What is asked of a container, by flags over the image's HEALTHCHECK; None when nothing is."""
    flags, image = policy.health, config.healthcheck
    if flags.off:
        return None
    test = ("CMD-SHELL", flags.cmd) if flags.cmd else image.test if image else ()
    if not test or test[0] == "NONE":
        return None

    def choose(given: int, own: int, default: int) -> int:
        return given or own or default

    return Health(
        test,
        choose(flags.interval_ns, image.interval_ns if image else 0, 30 * 10**9),
        choose(flags.timeout_ns, image.timeout_ns if image else 0, 30 * 10**9),
        choose(flags.start_period_ns, image.start_period_ns if image else 0, 0),
        choose(flags.start_interval_ns, image.start_interval_ns if image else 0, 5 * 10**9),
        choose(flags.retries, image.retries if image else 0, 3),
    )


def health_command(test: Sequence[str], shell: Sequence[str]) -> tuple[str, ...]:
    """The words to execute: those after CMD, or a line for the image's shell after CMD-SHELL."""
    if test and test[0] == "CMD-SHELL":
        return (*(shell or ("/bin/sh", "-c")), *test[1:2])
    return tuple(test[1:])


def key_values(words: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` or ``KEY``."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _log_size(text: str) -> Match[str] | None:
    if not text:
        return None
    import re  # most containers have the usual log

    return re.fullmatch(_LOG_SIZE, text)


def check_name(name: str) -> str:
    """Raises InvalidInput."""
    if len(name) < 2 or name[0] in "_.-" or not _OF_NAMES.issuperset(name):
        raise InvalidInput(
            f"invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and at least two characters"
        )
    return name
