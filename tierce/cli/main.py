"""``tierce``: from a command line to an exit code. The one place that exits."""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress

from image.bare import signals
from tierce.cli import quick
from tierce.cli.commands import COMMANDS, say_version, settings_of
from tierce.cli.declare import Ended, WrongUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Final, NoReturn


_SELDOM: Final = 50_000
"""New objects between two looks for garbage: what is imported is none, and looking for it takes milliseconds."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: the same clean-up as for Ctrl-C."""


def entry() -> NoReturn:
    """What the shell starts: ``main``, but without the interpreter's own end.

    All that must be given back has been by then. Taking the modules apart object by object
    takes ten milliseconds more, as long as a short command's own work.
    """
    gc.set_threshold(_SELDOM)
    code: object = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The ``tierce`` command. Exits with docker's exit codes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    signals.signal(signals.SIGTERM, _terminate)
    if "_TIERCE_COMPLETE" in os.environ:
        from tierce.cli import less_inspect

        less_inspect.install()
        from tierce.cli.clicked import ClickGroup
        from tierce.cli.completion import answer

        sys.exit(answer(ClickGroup(COMMANDS), os.environ["_TIERCE_COMPLETE"]))
    sys.exit(_finish(_invoke(arguments)))


def _prepare_streams() -> None:
    """Give a closed standard stream the null device, and the others a way with every character.

    Else the next file that is opened, the database perhaps, would be standard output.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = getattr(sys, name)
        if stream is None:
            while (null := os.open(os.devnull, os.O_RDWR)) < number:
                pass
            setattr(sys, name, os.fdopen(null, mode))
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _invoke(arguments: list[str]) -> int:
    """Run one command; its exit code, whatever happened."""
    debug = "--debug" in arguments[:4]
    try:
        _call(arguments)
        sys.stdout.flush()
    except Ended as ended:
        return ended.code
    except BaseException as error:
        if _reader_left(error):
            return _quiet_pipe()
        from tierce.cli.failures import report

        return report(error, sys.stderr, debug=debug)
    return 0


def _call(arguments: list[str]) -> None:
    """The command that they mean, with or without click."""
    if arguments in (["--version"], ["-v"]):  # scripts ask for it before they do anything else
        say_version(None, arguments[0], True)
    call = quick.read(COMMANDS, arguments)
    if call is None:
        from tierce.cli import less_inspect

        less_inspect.install()
        from tierce.cli.clicked import invoke

        invoke(COMMANDS, settings_of, arguments)
        return
    path, command, before, values = call
    try:
        command.function(settings_of(**before), **values)
    except WrongUsage as error:
        error.path = path
        raise


def _reader_left(error: BaseException) -> bool:
    """Whether standard output's reader is gone. A broken connection is a RegistryError, and no such thing."""
    if isinstance(error, OSError):
        return error.errno == errno.EPIPE
    cause = error.__cause__
    return type(error).__name__ == "StorageError" and isinstance(cause, OSError) and cause.errno == errno.EPIPE


def _finish(code: int) -> int:
    """Flush, so that output which can't be written is an error and not a silent loss."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_pipe()
    except OSError as error:
        print(f"tierce: write standard output: {(error.strerror or '').lower()}", file=sys.stderr)  # noqa: T201
        return code or 1
    return code


def _quiet_pipe() -> int:
    """The reader went away (``tierce images | head -1``): say nothing, as a killed process would."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 128 + signals.SIGPIPE
