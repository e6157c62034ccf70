"""``save``, ``load``, ``import``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from image.errors import InvalidInput
from image.platform import Platform
from image.reference import Reference
from tierce.cli.command import Settings, binary
from tierce.cli.declare import argument, command, image_argument, option
from tierce.cli.output import echo
from tierce.cli.terminal import is_terminal
from tierce.cli.transfer import copy_options, log_format_option, transfer_view
from tierce.host_platform import host_platform
from tierce.images import find


@command(
    "save",
    short_help="Write images to a tar archive",
    examples="""
tierce save -o hello.tar hello
tierce save hello busybox:latest | docker load
""",
)
@image_argument("words", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@option("-o", "--output", default="-", metavar="FILE", help="Write to a file, not to standard output")
@option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
def save(settings: Settings, words: Sequence[str], output: str, platform: str | None, quiet: bool) -> None:
    """Write images, all their layers and names to an archive that docker and podman load too."""
    from transfer.archives import save as save_images

    if output == "-" and is_terminal(sys.stdout):
        raise InvalidInput("cowardly refusing to save to a terminal: use the -o flag or redirect")
    with settings.store() as store, transfer_view(settings, quiet=quiet or output == "-") as view:
        save_images(words, output, store, copy_options(platform), view)
        for word in words:
            config = find(store.metadata, word).record.config
            store.journal.write("image", "save", config, {"name": config})


@command(
    "load",
    short_help="Read images from a tar archive",
    examples="""
tierce load -i hello.tar
docker save hello | tierce load
""",
)
@option("-i", "--input", "source", default="-", metavar="FILE", help="Read from a file, not from standard input")
@option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Which image of several platforms  [this machine's]")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
def load(settings: Settings, source: str, platform: str | None, quiet: bool) -> None:
    """Read the images of an archive that docker, podman or Tierce saved, compressed or not."""
    from transfer.archives import load as load_images

    if source == "-" and is_terminal(sys.stdin):
        raise InvalidInput("requested load from standard input, which is a terminal: use the -i flag or redirect")
    with settings.store() as store:
        with transfer_view(settings, quiet=quiet) as view:
            loaded = load_images(source, store, copy_options(platform), view)
        for image in loaded:
            config = store.facts(image.pulled.target).config
            store.journal.write("image", "load", config, {"name": config})
            for name in image.names:
                echo(f"Loaded image: {name.familiar}")
            if not image.names:
                echo(f"Loaded image ID: {config}")


@command(
    "import",
    short_help="Make an image of a root filesystem's tar",
    examples="""
tierce import rootfs.tar.gz debian:mine
tar -C rootfs -c . | tierce import -c 'CMD ["/bin/sh"]' -c 'ENV LANG=C.UTF-8' - tiny
""",
)
@argument("source", metavar="FILE|-")
@argument("name", required=False, metavar="[NAME[:TAG]]")
@option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="CMD, ENV, LABEL... for the image")
@option("-m", "--message", default="", metavar="TEXT", help="Comment in the image's history")
@option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="What the files are for  [this machine's]")
def import_(
    settings: Settings, source: str, name: str | None, changes: Sequence[str], message: str, platform: str | None
) -> None:
    """Make an image of one layer from a tar of a root filesystem, compressed or not."""
    from tierce.importing import ImportOptions, import_tar

    if "://" in source:
        raise InvalidInput(f"import {source}: URLs are not supported: download the file first, or pipe it in")
    if source == "-" and is_terminal(sys.stdin):
        raise InvalidInput("requested import from standard input, which is a terminal: redirect a tar to it")
    names = [Reference.parse(name).with_default_tag()] if name else []
    here = host_platform()
    wanted = Platform.parse(platform, here) if platform else here
    options = ImportOptions(wanted, changes, message, source, settings.clock())
    with settings.store() as store, ExitStack() as stack:
        stream = binary(sys.stdin) if source == "-" else stack.enter_context(open(source, "rb"))
        imported = import_tar(store, stream.read, names, options)
        store.journal.write("image", "import", imported, {"name": imported})
        echo(imported)
