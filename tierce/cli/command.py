"""What every command is made of: help with examples, groups that load late, settings.

Click is the only import that a start pays for here; a command's own module is imported when
the command is looked up by name, never to print a list.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from store.store import Store

_GO_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_F = TypeVar("_F", bound=Callable[..., Any])


class Settings(NamedTuple):
    """What the global options and the surroundings decide. ``clock`` gives seconds since 1970."""

    root: Path
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.time
    debug: bool = False

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store under the root, made when absent. Raises StorageError.

        An ordinary user's process becomes root of a user namespace first: files of a store
        belong to the ids of its images.
        """
        from store.store import Store

        if os.geteuid() != 0 and os.environ.get("TIERCE_USER_NAMESPACE") != "no":
            from runner.runtime.user_namespace import enter

            enter(os.environ, self.root)

        with Store.open(self.root, self._keep_free()) as store:
            yield store

    def _keep_free(self) -> int | None:
        """How much of the disk pulls leave, where the user says so. Raises InvalidInput."""
        kept = self.environ.get("TIERCE_KEEP_FREE")
        if not kept:
            return None
        from tierce.cli.units import parse_size

        return parse_size(kept)


def default_root(environ: Mapping[str, str], uid: int) -> Path:
    """Where images live when ``--root`` says nothing: the system's place, or the user's own."""
    if configured := environ.get("TIERCE_ROOT"):
        return Path(configured)
    if uid == 0:
        return Path("/var/lib/tierce")
    data = environ.get("XDG_DATA_HOME") or os.path.join(environ.get("HOME", "/"), ".local/share")
    return Path(data) / "tierce"


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


class Command(click.Command, _Help):
    """One command. ``examples`` are lines as a user would type them."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, spell_out_flags(self, args))
        except click.NoSuchOption as error:
            if why := _refusal(error, ctx):
                raise why from error
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        self.write_examples(formatter)


def _refusal(error: click.NoSuchOption, context: click.Context) -> click.NoSuchOption | None:
    """Why there is no such flag, where docker or podman has it."""
    from tierce.cli.refused import RefusedFlag, refused_flag  # a mistake can wait

    why = refused_flag(_path(context), error.option_name)
    return RefusedFlag(error.option_name, why, context) if why else None


def _path(context: click.Context) -> str:
    """``run``, ``network create``: the command's words without the program's."""
    return context.command_path.partition(" ")[2]


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


def command(
    name: str, *, examples: str = "", cls: type[Command] = Command, **options: Any
) -> Callable[[Callable[..., Any]], Command]:
    """A decorator that makes a function a ``Command``."""
    return click.command(name, cls=cls, examples=examples, **options)


class Entry(NamedTuple):
    """Where a command lives, and what the list of commands says of it."""

    module: str
    attribute: str
    summary: str

    def load(self) -> click.Command:
        from importlib import import_module

        found = getattr(import_module(self.module), self.attribute)
        assert isinstance(found, click.Command)
        return found


class LazyGroup(click.Group, _Help):
    """A group whose commands are imported when they are called.

    ``sections`` maps a heading of the help to names and their entries (or groups, which are
    as cheap as entries). ``hidden`` names work and are not listed.
    """

    def __init__(
        self,
        name: str,
        *,
        sections: Mapping[str, Mapping[str, Entry | LazyGroup]],
        hidden: Mapping[str, Entry] | None = None,
        examples: str = "",
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.sections = sections
        self.examples = examples
        self.entries: dict[str, Entry | LazyGroup] = {
            key: entry for section in sections.values() for key, entry in section.items()
        } | dict(hidden or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if why := _refusal(error, ctx):
                raise why from error
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        return [name for section in self.sections.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        entry = self.entries.get(cmd_name)
        return entry.load() if isinstance(entry, Entry) else entry

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None:
            raise UnknownCommand(name, ctx, tuple(self.entries))
        return name, found, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, _summary(entry)) for name, entry in entries.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        self.write_examples(formatter)


def _summary(entry: Entry | LazyGroup) -> str:
    return entry.summary if isinstance(entry, Entry) else (entry.short_help or "")


class UnknownCommand(click.UsageError):
    """No such command; says which one is spelled alike."""

    def __init__(self, name: str, context: click.Context, known: Sequence[str]) -> None:
        from difflib import get_close_matches  # a misspelling can wait

        from tierce.cli.refused import refused_command

        why = refused_command(f"{_path(context)} {name}".strip())
        close = get_close_matches(name, known, n=1)
        hint = f": {why}" if why else f"; did you mean {context.command_path} {close[0]}?" if close else ""
        super().__init__(f"unknown command: {context.command_path} {name}{hint}", context)


class ExitCode(Exception):
    """A command failed in a way whose exit code its error alone does not tell.

    ``cause`` is reported as usual; docker's ``run`` reports its own errors with 125.
    """

    def __init__(self, code: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.code = code
        self.cause = cause


format_option = click.option(
    "--format", "form", default="", metavar="FORMAT",
    help="'table', 'json', 'table TEMPLATE' or a Go TEMPLATE such as '{{.ID}}'",
)  # fmt: skip


def _refuse_trust(_context: click.Context, _parameter: click.Parameter, trusting: bool) -> None:
    if not trusting:
        raise click.UsageError("docker's content trust is not supported, check signatures with cosign")


content_trust_option = click.option(
    "--disable-content-trust/--content-trust", default=True, hidden=True, expose_value=False, callback=_refuse_trust
)
"""Docker's, which is off by default there too."""


def confirm(question: str) -> bool:
    """Docker's y/N question. What is not an answer, or no one to give it, is no."""
    click.echo(f"{question} [y/N] ", nl=False)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def binary(stream: Any) -> IO[bytes]:
    """The bytes side of standard input or output."""
    found: IO[bytes] = stream.buffer
    return found


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


def image_argument(name: str = "image", **options: Any) -> Callable[[_F], _F]:
    """An argument that names an image in the store, with completion."""
    return click.argument(name, shell_complete=complete_image, **options)
