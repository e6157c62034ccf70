"""The table of all commands, and the options before them."""

from __future__ import annotations

import os

from tierce import VERSION
from tierce.cli.command import Settings, default_root
from tierce.cli.declare import PATH, Ended, Entry, Group, WrongUsage, option
from tierce.cli.output import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from image.paths import Path

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


def say_version(_settings: object, _name: str, wanted: bool) -> None:
    """For ``--version``. Raises Ended."""
    if wanted:
        echo(f"tierce version {VERSION}")
        raise Ended(0)


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


def _refuse(_settings: object, name: str, given: object) -> None:
    if given is not None:
        raise WrongUsage(f"{name} is not supported: {_SKOPEO_S[name]}")


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

COMMANDS: Final = Group(
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
            "artifact": Group(
                "artifact", sections={"Commands": _ARTIFACT}, summary="Manage files in registries that are no images"
            ),
            "builder": Group("builder", sections={"Commands": _BUILDER}, summary="Manage the build cache"),
            "container": Group(
                "container",
                sections={"Commands": {
                    **_CONTAINER, "ls": _PS, "inspect": _IMAGE["inspect"], "run": _RUN,
                    "exists": Entry("tierce.cli.containers", "exists", "Tell by the exit code whether a container exists"),
                    "prune": Entry("tierce.cli.containers", "prune", "Remove all stopped containers"),
                }},
                summary="Manage containers",
                hidden={"list": _PS, "ps": _PS, "remove": _CONTAINER["rm"]},
            ),
            "image": Group(
                "image", sections={"Commands": _IMAGE}, summary="Manage images",
                hidden={"list": _IMAGE["ls"], "remove": _IMAGE["rm"]},
            ),
            "manifest": Group(
                "manifest", sections={"Commands": _MANIFEST}, summary="Manage lists of images for several platforms"
            ),
            "network": Group(
                "network", sections={"Commands": _NETWORK}, summary="Manage networks",
                hidden={"list": _NETWORK["ls"], "remove": _NETWORK["rm"]},
            ),
            "system": Group("system", sections={"Commands": _SYSTEM}, summary="Manage the store"),
            "volume": Group(
                "volume", sections={"Commands": _VOLUME}, summary="Manage volumes",
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
    options=(
        option(
            "--root", metavar="DIR", type=PATH, envvar="TIERCE_ROOT",
            help="Where images are kept  [/var/lib/tierce, or ~/.local/share/tierce]",
        ),
        option(
            "--registries-conf", metavar="FILE",
            help="Mirrors and short names from this file  [registries.conf, as podman finds it]",
        ),
        *(option(name, hidden=True, expose_value=False, callback=_refuse) for name in _SKOPEO_S),
        option("--insecure-policy", is_flag=True, hidden=True, expose_value=False),
        option("--debug", is_flag=True, help="On an error, show all of it"),
        option("-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=say_version, help="Show the version"),
    ),
)  # fmt: skip


def settings_of(root: Path | None, registries_conf: str | None, debug: bool) -> Settings:
    """What the options before the command say, with what is so where nothing was said."""
    environ = os.environ if registries_conf is None else {**os.environ, "CONTAINERS_REGISTRIES_CONF": registries_conf}
    return Settings((root or default_root(os.environ, os.geteuid())).absolute(), environ, debug=debug)
