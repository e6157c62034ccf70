"""Every flag of docker and podman is known here: it works, or is refused with a reason."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cli import Tierce
from tests.support.process import need
from tierce.cli.build_foreign import foreign_options
from tierce.cli.commands import COMMANDS
from tierce.cli.declare import Command, Entry, Group, Option
from tierce.cli.refused import flags, refused_command, refused_flag

_FLAG = re.compile(r"^\s+(?:(-\w), )?(--[a-z][a-z0-9-]*|-[a-zA-Z]\b)", re.MULTILINE)
_COMMAND = re.compile(r"^  ([a-z][a-z-]+)\*? +[A-Z]", re.MULTILINE)
_GROUPS = ("", "container", "image", "network", "volume", "system", "builder")


def _help(words: tuple[str, ...]) -> str:
    return subprocess.run([*words, "--help"], check=False, capture_output=True, text=True).stdout


def _found(path: str) -> Command | Group | None:
    found: Entry | Group | None = COMMANDS
    for word in path.split():
        found = found.entries.get(word) if isinstance(found, Group) else None
    return found.load() if isinstance(found, Entry) else found


def _flags_of(path: str, command: Command | Group) -> set[str]:
    parameters = command.options if isinstance(command, Group) else command.parameters
    options = [option for option in parameters if isinstance(option, Option)]
    if command.name == "build":
        options += foreign_options()
    own = {name for option in options for name in option.names}
    return own | {"--help", "-h"} | ({"--help"} if path else set())


@pytest.mark.peer
@pytest.mark.parametrize("tool", ["docker", "podman"])
def test_every_command_and_flag_is_known(tool: str) -> None:
    need(tool, package={"docker": "docker.io"}.get(tool, tool))
    with ThreadPoolExecutor(4) as pool:
        groups = dict(zip(_GROUPS, pool.map(lambda group: _help((tool, *group.split())), _GROUPS), strict=True))
        paths = sorted({f"{group} {name}".strip() for group, text in groups.items() for name in _COMMAND.findall(text)})
        assert [path for path in paths if _found(path) is None and not refused_command(path)] == []
        ours = [(path, command) for path in ("", *paths) if (command := _found(path)) is not None]
        ours = [(path, command) for path, command in ours if not (path and isinstance(command, Group))]
        for (path, command), text in zip(ours, pool.map(lambda one: _help((tool, *one[0].split())), ours), strict=True):
            wanted = {name for pair in _FLAG.findall(text) for name in pair if name}
            missing = {name for name in wanted - _flags_of(path, command) if not refused_flag(path, name)}
            assert missing == set(), path


def test_reasons_are_given_for_commands_that_there_are() -> None:
    for path, name in flags():
        assert _found(path) is not None, (path, name)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("run", "--link", "db", "busybox"), 125, "flag --link is not supported: put both containers on a network"),
        (("container", "run", "--storage-opt", "size=1g", "x"), 125, "--storage-opt is not supported: layers have no quota"),
        (("network", "create", "--config-only", "x"), 125, "--config-only is not supported"),
        (("port", "--all"), 125, "--all is not supported: name the containers"),
        (("pull", "--disable-content-trust=false", "x"), 1, "content trust is not supported"),
        (("run", "--gpus", "all", "busybox"), 125, "--gpus is not supported"),
        (("search", "busybox"), 1, "unknown command: tierce search: only Docker Hub has it"),
        (("swarm", "init"), 1, "it belongs to swarms"),
        (("-H", "tcp://here", "ps"), 125, "flag -H is not supported: there is no daemon"),
        (("run", "--no-such", "busybox"), 125, "unknown flag: --no-such"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(tierce: Tierce, argv: tuple[str, ...], code: int, said: str) -> None:
    done = tierce.attempt(*argv)
    assert (done.code, said in done.stderr) == (code, True), str(done)
