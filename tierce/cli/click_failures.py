"""What a user sees of a mistake that click has found."""

from __future__ import annotations

from typing import TextIO

import click

from tierce.cli.clicked import UnknownCommand
from tierce.cli.failures import WRONG_FLAG, wrong_usage
from tierce.cli.output import echo

_INTERRUPTED = 130


def report_click(error: BaseException, stderr: TextIO, code: int | None) -> int:
    """Tell about a mistake; docker's exit code: 125 for flags, 1 for arguments and commands; ``code`` before these."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            echo(error.format_message())
            return 0
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            path = context.command_path if context is not None else ""
            usual = WRONG_FLAG if _is_about_a_flag(error) else 1
            return wrong_usage(_message(error), path, stderr, usual if code is None else code)
    return _INTERRUPTED


def _is_about_a_flag(error: click.ClickException) -> bool:
    match error:
        case click.NoSuchOption() | click.BadOptionUsage():
            return True
        case UnknownCommand():
            return False
        case click.MissingParameter() | click.BadParameter():
            return not isinstance(error.param, click.Argument)
        case _:
            return False


def _message(error: click.ClickException) -> str:
    if not isinstance(error, click.NoSuchOption):
        return error.format_message()
    if why := getattr(error, "why", ""):
        return f"flag {error.option_name} is not supported: {why}"
    close = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
    return f"unknown flag: {error.option_name}{close}"
