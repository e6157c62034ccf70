"""``completion``, the answers to a shell that asks what may follow, and ``help``."""

from __future__ import annotations

from typing import Final

import click

from tierce.cli.declare import Choice, WrongUsage, argument, command
from tierce.cli.output import echo

_VARIABLE: Final = "_TIERCE_COMPLETE"


@command(
    "completion",
    short_help="Print the set-up of a shell's completion",
    for_click=True,
    examples="""
source <(tierce completion bash)
tierce completion zsh > "${fpath[1]}/_tierce"
tierce completion fish > ~/.config/fish/completions/tierce.fish
""",
)
@argument("shell", type=Choice(("bash", "zsh", "fish")))
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets a shell complete commands, flags and image names."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "tierce", _VARIABLE)
    echo(script.source_template % script.source_vars())  # source() would start bash to ask its version


def answer(root: click.Command, instruction: str) -> int:
    """Answer the script of ``completion``: what may follow the words typed so far. The exit code."""
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "tierce", _VARIABLE, instruction)


@command("help", short_help="Show the help of a command", for_click=True)
@argument("words", nargs=-1, metavar="[COMMAND]...")
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command."""
    parent = context.find_root()
    found: click.Command = parent.command
    for word in words:
        below = found.get_command(parent, word) if isinstance(found, click.Group) else None
        if below is None:
            raise WrongUsage(f"unknown help topic: {' '.join(words)}")
        parent = click.Context(below, info_name=word, parent=parent)
        found = below
    echo(found.get_help(parent))
