"""``tierce``: the table of commands, the global options, and the one place that exits."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from tierce import VERSION
from tierce.cli.command import Entry, LazyGroup, Settings, default_root

_IMAGE: Final = {
    "ls": Entry("tierce.cli.images", "images", "List images"),
    "rm": Entry("tierce.cli.images", "rmi", "Remove one or more images"),
    "tag": Entry("tierce.cli.images", "tag", "Give an image one more name"),
    "inspect": Entry("tierce.cli.inspect", "inspect", "Show everything about one or more images"),
    "history": Entry("tierce.cli.inspect", "history", "Show the steps an image was made of"),
    "build": Entry("tierce.cli.build", "build", "Build an image from a Dockerfile"),
    "pull": Entry("tierce.cli.transfer", "pull", "Download an image from a registry"),
    "push": Entry("tierce.cli.transfer", "push", "Upload an image to a registry"),
    "save": Entry("tierce.cli.archives", "save", "Write images to a tar archive"),
    "load": Entry("tierce.cli.archives", "load", "Read images from a tar archive"),
    "import": Entry("tierce.cli.archives", "import_", "Make an image of a root filesystem's tar"),
    "export": Entry("tierce.cli.flatten", "image_export", "Write an image's files, as one tree, to a tar"),
    "flatten": Entry("tierce.cli.flatten", "flatten", "Make one layer of an image's layers"),
    "exists": Entry("tierce.cli.images", "exists", "Tell by the exit code whether an image exists"),
    "prune": Entry("tierce.cli.prune", "image_prune", "Remove images that nothing names"),
}
_NETWORK: Final = {
    name: Entry("tierce.cli.network", name, summary)
    for name, summary in (
        ("create", "Create a network"),
        ("ls", "List networks"),
        ("inspect", "Show everything about one or more networks"),
        ("exists", "Tell by the exit code whether a network exists"),
        ("rm", "Remove one or more networks"),
        ("prune", "Remove networks that no container is on"),
        ("connect", "Put a container on a network"),
        ("disconnect", "Take a container off a network"),
    )
}
_MANIFEST: Final = {
    name: Entry("tierce.cli.manifest", name, summary)
    for name, summary in (
        ("create", "Make a manifest list"),
        ("add", "Add images to a manifest list"),
        ("annotate", "Say more of an image in a manifest list"),
        ("inspect", "Show a manifest list"),
        ("push", "Push a manifest list and its images"),
        ("remove", "Take an image off a manifest list"),
        ("exists", "Tell by the exit code whether a manifest list exists"),
        ("rm", "Remove manifest lists"),
    )
}
_ARTIFACT: Final = {
    name: Entry("tierce.cli.artifact", name, summary)
    for name, summary in (
        ("push", "Push files to a registry"),
        ("pull", "Download the files of an artifact"),
        ("attach", "Push files as something that is about an image"),
        ("discover", "Show what refers to an image"),
    )
}
_SYSTEM: Final = {
    "df": Entry("tierce.cli.system", "df", "Show what takes how much space"),
    "events": Entry("tierce.cli.events", "events", "Follow what happens to containers, images, networks and volumes"),
    "prune": Entry("tierce.cli.prune", "system_prune", "Remove what is not needed"),
    "info": Entry("tierce.cli.system", "info", "Show the store, the kernel and what is possible here"),
    "check": Entry("tierce.cli.system", "check", "Verify every byte and record of the store"),
}
_VOLUME: Final = {
    "create": Entry("tierce.cli.volume", "create", "Make a volume"),
    "exists": Entry("tierce.cli.volume", "exists", "Tell by the exit code whether a volume exists"),
    "inspect": Entry("tierce.cli.volume", "inspect", "Show everything about one or more volumes"),
    "ls": Entry("tierce.cli.volume", "ls", "List volumes"),
    "prune": Entry("tierce.cli.volume", "prune", "Remove volumes that no container uses"),
    "rm": Entry("tierce.cli.volume", "rm", "Remove one or more volumes"),
}
_BUILDER: Final = {
    "build": _IMAGE["build"],
    "du": Entry("tierce.cli.builder", "du", "Show what the build cache holds"),
    "prune": Entry("tierce.cli.builder", "prune", "Remove build cache"),
    "shell": Entry("tierce.cli.shell", "shell", "Look inside a build step that failed"),
}


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"tierce version {VERSION}")
        context.exit()


_SKOPEO_S: Final = {
    "--override-arch": "name the image by --platform OS/ARCH",
    "--override-os": "name the image by --platform OS/ARCH",
    "--override-variant": "name the image by --platform OS/ARCH/VARIANT",
    "--command-timeout": "use timeout(1)",
    "--tmpdir": "set TMPDIR",
    "--policy": "Tierce checks no signatures: verify them with cosign, or copy with skopeo",
    "--registries.d": "Tierce reads and writes no signatures of this kind: copy with skopeo",
}
"""skopeo's options before the command that are not taken, and what to do instead."""


def _refuse(_context: click.Context, parameter: click.Parameter, given: object) -> None:
    if given is not None:
        raise click.UsageError(f"{parameter.opts[0]} is not supported: {_SKOPEO_S[parameter.opts[0]]}")


_RUN: Final = Entry("tierce.cli.run", "run", "Run a command in a new container")
_CONTAINER: Final = {
    "attach": Entry("tierce.cli.logs", "attach", "Attach to a running container"),
    "commit": Entry("tierce.cli.container_files", "commit", "Make an image of a container's changes"),
    "cp": Entry("tierce.cli.container_files", "cp", "Copy files between a container and here"),
    "create": Entry("tierce.cli.run", "create", "Create a new container"),
    "diff": Entry("tierce.cli.container_files", "diff", "List what a container has changed in its image's files"),
    "export": Entry("tierce.cli.container_files", "export", "Write a container's root filesystem as a tar"),
    "exec": Entry("tierce.cli.exec", "exec_", "Run a command in a running container"),
    "kill": Entry("tierce.cli.containers", "kill", "Kill one or more running containers"),
    "logs": Entry("tierce.cli.logs", "logs", "Show what a container has written"),
    "pause": Entry("tierce.cli.containers", "pause", "Freeze all processes of containers"),
    "port": Entry("tierce.cli.containers", "port", "List the published ports of a container"),
    "rename": Entry("tierce.cli.containers", "rename", "Rename a container"),
    "restart": Entry("tierce.cli.containers", "restart", "Restart one or more containers"),
    "rm": Entry("tierce.cli.containers", "rm", "Remove one or more containers"),
    "start": Entry("tierce.cli.containers", "start", "Start one or more stopped containers"),
    "stats": Entry("tierce.cli.container_use", "stats", "Show what containers use, again and again"),
    "stop": Entry("tierce.cli.containers", "stop", "Stop one or more running containers"),
    "top": Entry("tierce.cli.container_use", "top", "List the processes of a container"),
    "unpause": Entry("tierce.cli.containers", "unpause", "Thaw paused containers"),
    "update": Entry("tierce.cli.container_use", "update", "Change the limits and the restart policy of containers"),
    "wait": Entry("tierce.cli.containers", "wait", "Wait until containers stop, then print their exit codes"),
}
_PS: Final = Entry("tierce.cli.ps", "ps", "List containers")

COMMANDS: Final = LazyGroup(
    "tierce",
    help="Build, transfer and run container images without a daemon.",
    sections={
        "Common commands": {
            "run": _RUN,
            **{name: _CONTAINER[name] for name in ("exec",)},
            "ps": _PS,
            **{name: _IMAGE[name] for name in ("build", "pull", "push")},
            "images": _IMAGE["ls"],
            "login": Entry("tierce.cli.login", "login", "Keep a password for a registry"),
            "logout": Entry("tierce.cli.login", "logout", "Forget the password for a registry"),
            "version": Entry("tierce.cli.system", "version", "Show the version"),
        },
        "Management commands": {
            "artifact": LazyGroup(
                "artifact", sections={"Commands": _ARTIFACT}, short_help="Manage files in registries that are no images"
            ),
            "builder": LazyGroup("builder", sections={"Commands": _BUILDER}, short_help="Manage the build cache"),
            "container": LazyGroup(
                "container",
                sections={"Commands": {
                    **_CONTAINER, "ls": _PS, "inspect": _IMAGE["inspect"], "run": _RUN,
                    "exists": Entry("tierce.cli.containers", "exists", "Tell by the exit code whether a container exists"),
                    "prune": Entry("tierce.cli.containers", "prune", "Remove all stopped containers"),
                }},
                short_help="Manage containers",
                hidden={"list": _PS, "ps": _PS, "remove": _CONTAINER["rm"]},
            ),
            "image": LazyGroup(
                "image", sections={"Commands": _IMAGE}, short_help="Manage images",
                hidden={"list": _IMAGE["ls"], "remove": _IMAGE["rm"]},
            ),
            "manifest": LazyGroup(
                "manifest", sections={"Commands": _MANIFEST}, short_help="Manage lists of images for several platforms"
            ),
            "network": LazyGroup(
                "network", sections={"Commands": _NETWORK}, short_help="Manage networks",
                hidden={"list": _NETWORK["ls"], "remove": _NETWORK["rm"]},
            ),
            "system": LazyGroup("system", sections={"Commands": _SYSTEM}, short_help="Manage the store"),
            "volume": LazyGroup(
                "volume", sections={"Commands": _VOLUME}, short_help="Manage volumes",
                hidden={"list": _VOLUME["ls"], "remove": _VOLUME["rm"]},
            ),
        },
        "Commands": {
            **{name: entry for name, entry in _CONTAINER.items() if name != "exec"},
            "completion": Entry("tierce.cli.completion", "completion", "Print the set-up of a shell's completion"),
            "append": Entry("tierce.cli.mutate", "append", "Add layers to an image"),
            "catalog": Entry("tierce.cli.delete", "catalog", "List the repositories of a registry"),
            "copy": Entry("tierce.cli.copy", "copy", "Copy an image from anywhere to anywhere"),
            "delete": Entry("tierce.cli.delete", "delete", "Delete an image from a registry"),
            "executor": Entry("tierce.cli.kaniko", "executor", "Build as kaniko's executor does, with its flags"),
            "digest": Entry("tierce.cli.repositories", "digest", "Print the digest of an image in a registry"),
            "events": _SYSTEM["events"],
            "flatten": _IMAGE["flatten"],
            "history": _IMAGE["history"],
            "import": _IMAGE["import"],
            "info": _SYSTEM["info"],
            "inspect": _IMAGE["inspect"],
            "list-tags": Entry("tierce.cli.repositories", "list_tags", "List the tags of a repository"),
            "load": _IMAGE["load"],
            "mutate": Entry("tierce.cli.mutate", "mutate", "Change what an image says of itself"),
            "pin": Entry("tierce.cli.pin", "pin", "Write digests to the image names of Dockerfiles"),
            "rebase": Entry("tierce.cli.mutate", "rebase", "Put an image on another base"),
            "rmi": _IMAGE["rm"],
            "save": _IMAGE["save"],
            "sync": Entry("tierce.cli.sync", "sync", "Keep repositories equal to others"),
            "tag": _IMAGE["tag"],
        },
    },
    hidden={
        "help": Entry("tierce.cli.completion", "help_", "Show the help of a command"),
        "manifest-digest": Entry("tierce.cli.repositories", "manifest_digest", "Print the digest of a manifest's file"),
    },
    examples="""
tierce build -t hello .          # Dockerfile to image
tierce run --rm hello            # image to process
tierce copy hello oci:/tmp/hello # image to anywhere
tierce rmi --help                # more about one command
""",
    params=[
        click.Option(
            ["--root"], metavar="DIR", type=click.Path(path_type=Path), envvar="TIERCE_ROOT",
            help="Where images are kept  [/var/lib/tierce, or ~/.local/share/tierce]",
        ),
        click.Option(
            ["--registries-conf"], metavar="FILE",
            help="Mirrors and short names from this file  [registries.conf, as podman finds it]",
        ),
        *(click.Option([name], hidden=True, expose_value=False, callback=_refuse) for name in _SKOPEO_S),
        click.Option(["--insecure-policy"], is_flag=True, hidden=True, expose_value=False),
        click.Option(["--debug"], is_flag=True, help="On an error, show all of it"),
        click.Option(["-v", "--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version"),
    ],
)  # fmt: skip


@click.pass_context
def _settings(context: click.Context, root: Path | None, registries_conf: str | None, debug: bool) -> None:
    environ = os.environ if registries_conf is None else {**os.environ, "CONTAINERS_REGISTRIES_CONF": registries_conf}
    context.obj = Settings((root or default_root(os.environ, os.geteuid())).absolute(), environ, debug=debug)


COMMANDS.callback = _settings


class Terminated(KeyboardInterrupt):
    """SIGTERM: the same clean-up as for Ctrl-C."""


def entry() -> NoReturn:
    """What the shell starts: ``main``, but without the interpreter's own end.

    All that must be given back has been by then. Taking the modules apart object by object
    takes ten milliseconds more, as long as a short command's own work.
    """
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
    signal.signal(signal.SIGTERM, _terminate)
    if "_TIERCE_COMPLETE" in os.environ:
        from tierce.cli.completion import answer

        sys.exit(answer(COMMANDS, os.environ["_TIERCE_COMPLETE"]))
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
        with COMMANDS.make_context("tierce", arguments) as context:
            COMMANDS.invoke(context)
            sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BaseException as error:
        if _reader_left(error):
            return _quiet_pipe()
        from tierce.cli.failures import report

        return report(error, sys.stderr, debug=debug)
    return 0


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
    return 128 + signal.SIGPIPE
