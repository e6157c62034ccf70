"""The flags that ``run`` and ``create`` share, and what they say as values.

``_PROCESS`` say what the container is (``RunOptions``); ``_LIFE`` how it is kept (``Policy``);
``_IMAGE`` which image it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tierce.cli.network_flags import NETWORK, read_network

if TYPE_CHECKING:
    from runner.containers.options import RunOptions

_F = TypeVar("_F", bound=Callable[..., Any])

_PROCESS: Final = (
    click.option(
        "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone is taken from here"
    ),
    click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Set the variables of a file"),
    click.option("-v", "--volume", "volumes", multiple=True, metavar="HOST:PATH[:ro]", help="Mount a path of the host"),
    click.option(
        "--mount", "mounts", multiple=True, metavar="type=bind|tmpfs,...", help="Mount, in docker's long form"
    ),
    click.option("--tmpfs", multiple=True, metavar="PATH[:OPTIONS]", help="Mount an empty file system in memory"),
    click.option("-w", "--workdir", default="", metavar="PATH", help="Working directory"),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Name or number to run as"),
    click.option("--group-add", multiple=True, metavar="GROUP", help="One more group"),
    click.option("-i", "--interactive", is_flag=True, help="Pass standard input on"),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal"),
    click.option("--entrypoint", metavar="PROGRAM", help="Run this instead of the image's entrypoint"),
    *NETWORK,
    click.option("-h", "--hostname", default="", metavar="NAME", help="Host name"),
    click.option("--cap-add", multiple=True, metavar="CAP", help="Give a capability, or ALL"),
    click.option("--cap-drop", multiple=True, metavar="CAP", help="Take a capability, or ALL"),
    click.option("--privileged", is_flag=True, help="Give all capabilities and devices, lift all masks"),
    click.option("--security-opt", multiple=True, metavar="OPTION", help="no-new-privileges"),
    click.option("--read-only", is_flag=True, help="Make the root filesystem read-only"),
    click.option("-m", "--memory", metavar="BYTES", help="Limit of memory, such as 512m"),
    click.option("--cpus", type=float, metavar="N", help="Limit of processors, such as 1.5"),
    click.option("--pids-limit", type=int, metavar="N", help="Limit of processes; -1 for none"),
)

_LIFE: Final = (
    click.option("--rm", "remove", is_flag=True, help="Remove it at its end; always so, as it runs in the foreground"),
    click.option("--name", default="", metavar="NAME", help="Name it, so that no second one runs by this name"),
)

_IMAGE: Final = (
    click.option(
        "--pull",
        "policy",
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to pull the image",
    ),
    click.option(
        "--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]"
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress of a pull"),
    click.option(
        "--tls-verify/--no-tls-verify", default=True, help="For a pull: demand https with a valid certificate  [on]"
    ),
)


def container_flags(command: _F) -> _F:
    """All flags of ``run`` and ``create``, in the order of the help."""
    for option in reversed((*_PROCESS, *_LIFE, *_IMAGE)):
        command = option(command)
    return command


def read_options(words: Sequence[str], flags: Mapping[str, Any]) -> RunOptions:
    """What the container is to be. ``flags`` are those of ``container_flags``. Raises InvalidInput."""
    from runner.containers.options import RunOptions
    from tierce.cli.units import parse_size
    from tierce.run import parse_mount, read_env_file, security_options

    mounted = [parse_mount(text) for text in flags["mounts"]]
    memory = flags["memory"]
    return RunOptions(
        args=tuple(words),
        entrypoint=flags["entrypoint"],
        env=(*(line for path in flags["env_files"] for line in read_env_file(path)), *flags["env"]),
        volumes=(*flags["volumes"], *(text for kind, text in mounted if kind == "bind")),
        tmpfs=(*flags["tmpfs"], *(text for kind, text in mounted if kind == "tmpfs")),
        workdir=flags["workdir"],
        user=flags["user"],
        group_add=tuple(flags["group_add"]),
        interactive=flags["interactive"],
        tty=flags["tty"],
        network=read_network(flags),
        publish=tuple(flags["publish"]),
        publish_all=flags["publish_all"],
        expose=tuple(flags["expose"]),
        hostname=flags["hostname"],
        cap_add=tuple(flags["cap_add"]),
        cap_drop=tuple(flags["cap_drop"]),
        privileged=flags["privileged"],
        read_only=flags["read_only"],
        no_new_privileges=security_options(flags["security_opt"]),
        memory=parse_size(memory) if memory else None,
        cpus=flags["cpus"],
        pids_limit=flags["pids_limit"],
    )
