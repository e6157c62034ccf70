"""The files of containers: ``commit``, ``cp``, ``diff``, ``export``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from image.errors import InvalidInput
from tierce.cli.chosen import latest_option, name_argument, single
from tierce.cli.command import Settings, binary
from tierce.cli.containers import containers
from tierce.cli.declare import WrongUsage, argument, command, option
from tierce.cli.output import echo
from tierce.cli.terminal import is_terminal
from tierce.cli.written import written


@command(
    "diff",
    short_help="List what a container has changed in its image's files",
    examples="tierce diff web",
)
@name_argument
@latest_option
def diff(settings: Settings, word: str, latest: bool) -> None:
    """List the files that a container has added (A), changed (C) and deleted (D), outside volumes."""
    from runner.containers.rootfs import STUBS, held
    from store.changes import changes
    from store.layers import mounted

    with containers(settings) as over, held(over.records, single(over, word, latest=latest)) as record:
        layers = over.records.store.layers
        with mounted(layers.overlay(record.made.layers)) as below:
            found = changes(layers.base / record.made.directory / "diff", below, stubs=STUBS)
    stream = binary(sys.stdout)
    for change in found:
        stream.write(b"%b /%b\n" % (change.kind.encode(), change.path))


@command(
    "export",
    short_help="Write a container's root filesystem as a tar",
    examples="""
tierce export -o web.tar web
tierce export web | tar -x -C rootfs
""",
)
@argument("word", metavar="CONTAINER")
@option("-o", "--output", default="-", metavar="FILE", help="Write to a file, not to standard output")
def export(settings: Settings, word: str, output: str) -> None:
    """Write the files of a container, as one tree and without its volumes, to a tar archive."""
    if ":" in word:
        raise WrongUsage(f"export {word}: that is no container; for an image: tierce image export {word}")
    from runner.containers.rootfs import held, own_tree
    from store.diff import pack

    with containers(settings) as over, held(over.records, word) as record, ExitStack() as stack:
        write = stack.enter_context(written(output))
        root = stack.enter_context(own_tree(over.records, record))
        pack(root, write, clamp_s=None, whiteouts=False)
        over.tell(record, "export")


@command(
    "cp",
    short_help="Copy files between a container and here",
    examples="""
tierce cp web:/etc/nginx/nginx.conf .
tierce cp site/. web:/srv
tierce cp web:/var/log - | tar -t
""",
)
@argument("source", metavar="[CONTAINER:]SOURCE|-")
@argument("target", metavar="[CONTAINER:]TARGET|-")
@option(
    "-a", "--archive", is_flag=True, help="Keep owners on the way out; give files to the container's user on the way in"
)
@option("-L", "--follow-link", "follow", is_flag=True, help="Copy what a link at SOURCE leads to, not the link")
@option("-q", "--quiet", is_flag=True, help="Do not say what was copied")
def cp(settings: Settings, source: str, target: str, archive: bool, follow: bool, quiet: bool) -> None:
    """Copy a file or directory between a container, running or not, and here; - is a tar on standard input or output.

    A directory is copied into one that exists, under its name; DIRECTORY/. is its content alone.
    """
    from runner.containers import copying
    from runner.containers.rootfs import container_owner, held, whole_tree

    origin, goal = copying.Place.parse(source), copying.Place.parse(target)
    if origin.container and goal.container:
        raise InvalidInput("copying between containers is not supported: copy to the host first")
    if not origin.container and not goal.container:
        raise InvalidInput("must specify at least one container source or target: CONTAINER:PATH")
    if not (source and target):
        raise InvalidInput("source and target of a copy can't be empty")
    word = origin.container or goal.container
    with containers(settings) as over, held(over.records, word) as record, ExitStack() as stack:
        root = stack.enter_context(whole_tree(over.records, record))
        inside = copying.ContainerTree(stack, root, word)
        here = copying.HostTree(stack)
        if goal.path == "-" and not goal.container:
            write = stack.enter_context(written("-"))
            copying.send(inside, origin.path, write, follow=follow)
            return
        if origin.path == "-" and not origin.container:
            copying.receive(_standard_input(), inside, goal.path)
            return
        if origin.container:
            owner = None if archive else (os.geteuid(), os.getegid())
            size = copying.copy(inside, origin.path, here, goal.path, follow=follow, owner=owner)
        else:
            owner = container_owner(root, record) if archive else None
            size = copying.copy(here, origin.path, inside, goal.path, follow=follow, owner=owner)
    if not quiet and is_terminal(sys.stderr):
        from tierce.cli.units import human_size

        echo(f"Successfully copied {human_size(size)} to {target}", err=True)


def _standard_input() -> Callable[[int], bytes]:
    """What the tar on standard input holds, whatever it is packed with."""
    from store.compression import PREFIX_SIZE, inflated

    if is_terminal(sys.stdin):
        raise InvalidInput("requested a tar from standard input, which is a terminal: redirect one to it")
    stream = binary(sys.stdin)

    def blocks() -> Iterator[bytes]:
        yield stream.read(PREFIX_SIZE)
        while block := stream.read(1 << 18):
            yield block

    return inflated(blocks())


@command(
    "commit",
    short_help="Make an image of a container's changes",
    examples="""
tierce commit web web:patched
tierce commit -m 'with tools' -c 'CMD ["bash"]' -c 'ENV LANG=C.UTF-8' shell tools
""",
)
@argument("word", metavar="CONTAINER")
@argument("name", required=False, metavar="[NAME[:TAG]]")
@option("-a", "--author", default="", metavar="TEXT", help="Who made it, such as 'Jo Doe <jo@example.com>'")
@option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="CMD, ENV, LABEL... for the image")
@option("-m", "--message", default="", metavar="TEXT", help="Comment in the image's history")
@option("-p", "--pause/--no-pause", default=True, help="Freeze a running container meanwhile  [on]")
def commit(
    settings: Settings, word: str, name: str | None, author: str, changes: Sequence[str], message: str, pause: bool
) -> None:
    """Make an image of a container: its image, what it changed as a layer, how it was run. Volumes are left out."""
    from image.reference import Reference
    from runner.containers.rootfs import held
    from tierce.committing import CommitOptions
    from tierce.committing import commit as commit_container

    names = [Reference.parse(name).with_default_tag()] if name else []
    if any(reference.digest for reference in names):
        raise InvalidInput(f"invalid name {name!r}: a tag can't be given together with a digest")
    options = CommitOptions(message, author, changes, pause, settings.clock())
    with containers(settings) as over, held(over.records, word) as record:
        made = commit_container(over, record, names, options)
        over.tell(record, "commit", comment=message, imageID=made, imageRef=str(names[0]) if names else "")
        echo(made)
