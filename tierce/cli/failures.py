"""What a user sees of a failure, and the exit code: one line, or all of it with ``--debug``.

1 is a failure; 125 a wrong flag, and a failure of ``run`` itself; 130 an interrupt,
143 SIGTERM. A container's own exit code passes through ``run`` unchanged.
"""

from __future__ import annotations

import errno
import os

from image.errors import DockerfileError, TierceError
from tierce.cli.command import ExitCode
from tierce.cli.declare import WrongUsage
from tierce.cli.terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TextIO

WRONG_FLAG: Final = 125
_ADVICE: Final = {
    errno.ENOSPC: ": free some space",
    errno.EACCES: ": is it yours?",
}


def report(error: BaseException, stderr: TextIO, *, debug: bool) -> int:
    """Tell about a failure; the exit code. Nothing deliberate ever shows a traceback without ``debug``."""
    code: int | None = None
    if isinstance(error, ExitCode):
        code, error = error.code, error.cause
    if any(base.__module__ == "click.exceptions" for base in type(error).__mro__):
        from tierce.cli.click_failures import report_click

        return report_click(error, stderr, code)
    if debug and not isinstance(error, WrongUsage):
        stderr.write(details(error))
    match error:
        case KeyboardInterrupt() | EOFError():
            return 143 if type(error).__name__ == "Terminated" else 130
        case WrongUsage():
            return wrong_usage(str(error), error.path, stderr, code or (WRONG_FLAG if error.about_flag else 1))
        case TierceError():
            stderr.write(explain(error))
        case OSError():
            stderr.write(f"tierce: {_system(error)}\n")
        case MemoryError():
            stderr.write("tierce: out of memory\n")
        case SystemExit():
            raise error
        case _:
            problem = printable(f"{type(error).__name__}: {error}")[:500]
            advice = "" if debug else " (this is a bug in tierce; --debug shows where)"
            stderr.write(f"tierce: internal error: {problem}{advice}\n")
    return code or 1


def wrong_usage(message: str, path: str, stderr: TextIO, code: int) -> int:
    """A line that says what is wrong with what was typed, and one that says where to look."""
    message = message.rstrip(".")
    stderr.write(f"tierce: {_one_line(message[:1].lower() + message[1:])}\n")
    if path:
        stderr.write(f"See '{path} --help'.\n")
    return code


def explain(error: TierceError) -> str:
    """The line of an error; a Dockerfile's error shows its source too."""
    if isinstance(error, DockerfileError):
        return _dockerfile(error)
    return f"tierce: {_one_line(str(error))}\n"


def _dockerfile(error: DockerfileError) -> str:
    """The source around the mistake, as docker shows it, and the problem as the last line."""
    hint = f" ({error.hint})" if error.hint else ""
    where = f"{error.span}: " if error.span else ""
    line = f"tierce: {where}{_one_line(str(error) + hint)}\n"
    if error.span is None or not error.source:
        return line
    from builder.dockerfile.excerpt import excerpt  # only a broken Dockerfile needs it

    return f"{excerpt(error.source, error.span)}\n{line}"


def _one_line(text: str) -> str:
    """Messages may quote what came from outside."""
    return printable(text.strip())


def _system(error: OSError) -> str:
    where = f"{os.fsdecode(error.filename)}: " if error.filename else "write: "
    reason = (error.strerror or str(error)).lower()
    return _one_line(f"{where}{reason}{_ADVICE.get(error.errno or 0, '')}")


def details(error: BaseException) -> str:
    """Traceback, and the facts that the errors of the chain carry."""
    import traceback  # only --debug shows one

    lines = traceback.format_exception(error)
    link: BaseException | None = error
    while link is not None:
        facts = {**getattr(link, "__dict__", {})}
        facts.pop("__notes__", None)
        if isinstance(link, TierceError) and facts:
            lines.append(f"{type(link).__name__}: " + ", ".join(f"{k}={_fact(v)}" for k, v in facts.items()) + "\n")
        link = link.__cause__
    return "".join(lines)


def _fact(value: object) -> str:
    return str(value) if hasattr(value, "__dataclass_fields__") else repr(value)
