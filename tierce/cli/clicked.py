"""Declared commands as click has them: for help, for mistakes, and for all that ``quick`` leaves to click."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from tierce.cli.command import Settings, default_root
from tierce.cli.declare import (
    DIRECTORY,
    PATH,
    RAW,
    Argument,
    Choice,
    Command,
    Ended,
    Entry,
    Group,
    IntRange,
    Option,
    WrongUsage,
)

_GO_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class _Help:
    """Docker's way of help: ``--help`` alone, an EXAMPLES block at the end."""

    examples: str

    def write_examples(self, formatter: click.HelpFormatter) -> None:
        if not self.examples:
            return
        formatter.write_paragraph()
        formatter.write("EXAMPLES:\n")
        for line in self.examples.strip("\n").splitlines():
            formatter.write(f"  {line}\n" if line else "\n")


class ClickCommand(click.Command, _Help):
    """One command."""

    def __init__(self, declared: Command) -> None:
        super().__init__(
            declared.name,
            params=[click_parameter(parameter) for parameter in declared.parameters],
            callback=declared.function,
            short_help=declared.short_help,
            help=declared.function.__doc__,
            context_settings={
                "allow_interspersed_args": declared.interspersed, "ignore_unknown_options": declared.loose,
            },
        )  # fmt: skip
        self.declared = declared
        self.examples = declared.examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _explained(ctx):
            return self._parse(ctx, list(args))

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        """With the options of other tools, once one is seen that is not known."""
        try:
            return super().parse_args(ctx, spell_out_flags(self, args))
        except (click.NoSuchOption, click.BadOptionUsage):
            if self.declared.others is None:
                raise
            known = {name for option in self.params for name in option.opts}
            others = [click_parameter(option) for option in self.declared.others()]
            self.params += [option for option in others if known.isdisjoint(option.opts)]
            return super().parse_args(ctx, spell_out_flags(self, args))

    def invoke(self, ctx: click.Context) -> None:
        with _explained(ctx):
            self.declared.function(ctx if self.declared.for_click else ctx.obj, **ctx.params)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        self.write_examples(formatter)


@contextmanager
def _explained(context: click.Context) -> Iterator[None]:
    """Mistakes in there tell which command they are about, and why docker's or podman's flag is not there."""
    try:
        yield
    except click.NoSuchOption as error:
        if why := _refusal(error, context):
            raise why from error
        raise
    except WrongUsage as error:
        error.path = error.path or context.command_path
        raise


class ClickGroup(click.Group, _Help):
    """A group whose commands are imported when they are called. ``settings`` makes what they get of the group's options."""

    def __init__(self, declared: Group, settings: Callable[..., Settings] | None = None) -> None:
        super().__init__(
            declared.name, short_help=declared.summary, help=declared.help or None,
            params=[click_parameter(option) for option in declared.options],
        )  # fmt: skip
        self.declared = declared
        self.examples = declared.examples
        self._settings = settings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _explained(ctx):
            return super().parse_args(ctx, spell_out_flags(self, args))

    def invoke(self, ctx: click.Context) -> None:
        if self._settings is not None:
            ctx.obj = self._settings(**ctx.params)
        super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        return list(self.declared.listed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        entry = self.declared.entries.get(cmd_name)
        if entry is None:
            return None
        return ClickCommand(entry.load()) if isinstance(entry, Entry) else ClickGroup(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None:
            raise UnknownCommand(name, ctx, tuple(self.declared.entries))
        return name, found, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        for title, entries in self.declared.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in entries.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        self.write_examples(formatter)


def invoke(declared: Group, settings: Callable[..., Settings], arguments: list[str]) -> None:
    """Have click read the arguments and call the command. Raises what that raises, WrongUsage, Ended, click's errors."""
    group = ClickGroup(declared, settings)
    try:
        with group.make_context(declared.name, arguments) as context:
            group.invoke(context)
    except click.exceptions.Exit as ended:
        raise Ended(ended.exit_code) from None


def call(declared: Command, settings: Settings, arguments: Sequence[str]) -> None:
    """One command called by another. Raises what the command raises, and click's errors."""
    command = ClickCommand(declared)
    with command.make_context(declared.name, list(arguments), obj=settings) as context:
        command.invoke(context)


class UnknownCommand(click.UsageError):
    """No such command; says which one is spelled alike."""

    def __init__(self, name: str, context: click.Context, known: Sequence[str]) -> None:
        from difflib import get_close_matches  # a misspelling can wait

        from tierce.cli.refused import refused_command

        why = refused_command(f"{_path(context)} {name}".strip())
        close = get_close_matches(name, known, n=1)
        hint = f": {why}" if why else f"; did you mean {context.command_path} {close[0]}?" if close else ""
        super().__init__(f"unknown command: {context.command_path} {name}{hint}", context)


class RefusedFlag(click.NoSuchOption):
    """A flag that docker or podman has."""

    def __init__(self, name: str, why: str, context: click.Context) -> None:
        super().__init__(name, ctx=context)
        self.why = why


def _refusal(error: click.NoSuchOption, context: click.Context) -> click.NoSuchOption | None:
    """Why there is no such flag, where docker or podman has it."""
    from tierce.cli.refused import refused_flag  # a mistake can wait

    why = refused_flag(_path(context), error.option_name)
    return RefusedFlag(error.option_name, why, context) if why else None


def _path(context: click.Context) -> str:
    """``run``, ``network create``: the command's words without the program's."""
    return context.command_path.partition(" ")[2]


# --- parameters -----------------------------------------------------------------------------


def click_parameter(declared: Option | Argument) -> click.Parameter:
    """The same to click."""
    attributes = {**declared.attributes}
    if "type" in attributes:
        attributes["type"] = _click_type(declared.type)
    if isinstance(declared, Argument):
        if attributes.pop("completes_images", False):
            attributes["shell_complete"] = complete_image
        return click.Argument([declared.name], **attributes)
    if (callback := declared.callback) is not None:
        attributes["callback"] = _click_callback(callback)
    return click.Option(list(declared.declarations), **attributes)


def _click_type(kind: Any) -> Any:
    match kind:
        case Choice():
            return click.Choice(kind.words)
        case IntRange():
            return click.IntRange(kind.low, kind.high)
    known = {
        RAW: click.UNPROCESSED,
        PATH: click.Path(path_type=Path),
        DIRECTORY: click.Path(file_okay=False, path_type=Path),
    }
    return known.get(kind, kind)


def _click_callback(callback: Callable[[Any, str, Any], None]) -> Callable[[click.Context, click.Parameter, Any], None]:
    return lambda context, parameter, given: callback(context.obj, parameter.opts[-1], given)


def complete_image(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of images in the store that start as typed; an unreadable store has none."""
    from image.errors import TierceError
    from image.reference import Reference

    root = ctx.find_root().params.get("root") or default_root(os.environ, os.geteuid())
    try:
        with Settings(Path(root), os.environ).store() as store:
            names = [Reference.parse(record.name).familiar for record in store.metadata.names()]
    except TierceError:
        return []
    return [name for name in names if name.startswith(incomplete)]


# --- spellings ------------------------------------------------------------------------------


def spell_out_flags(of: click.Command, arguments: Sequence[str]) -> list[str]:
    """Go's ``--flag=true`` and ``--flag=false`` as click's ``--flag``, ``--no-flag`` or nothing.

    A switch that may have a word, ``--pull=never``, is a switch of that word, ``--pull-never``; and
    ``-t=NAME`` is ``-t NAME``.

    What follows ``--``, or the first argument of a command that passes the rest on, is left alone.
    """
    options = {name: param for param in of.params if isinstance(param, click.Option) for name in param.opts}
    rest = iter(arguments)
    spelled: list[str] = []
    for word in rest:
        if word == "--" or (not word.startswith("-") and not of.allow_interspersed_args):
            return [*spelled, word, *rest]
        spelled += _without_boolean(options, word)
        if _wants_next(options, word):
            spelled += [value for value in (next(rest, None),) if value is not None]
    return spelled


def _without_boolean(options: Mapping[str, click.Option], word: str) -> list[str]:
    name, equals, value = word.partition("=")
    option = options.get(name)
    if equals and option is not None and not option.is_flag and len(name) == 2:
        return [name, value]
    if not equals or option is None or not option.is_flag:
        return [word]
    if f"{name}-{value}" in options:
        return [f"{name}-{value}"]
    if value.lower() not in _GO_BOOLEANS:
        return [word]
    return [name] if _GO_BOOLEANS[value.lower()] else option.secondary_opts[:1]


def _wants_next(options: Mapping[str, click.Option], word: str) -> bool:
    """Whether the argument after this one is its value: ``--env X``, ``-e X``, ``-ite X``."""
    if word.startswith("--") or "=" in word[:2]:
        option = options.get(word)
        return option is not None and not option.is_flag and not option.count
    for position, letter in enumerate(word[1:], start=2):
        option = options.get(f"-{letter}")
        if option is not None and not option.is_flag and not option.count:
            return position == len(word)
    return False
