"""``mutate``, ``append`` and ``rebase``: an image of another one without a build, in crane's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tierce.cli.command import Settings
from tierce.cli.declare import PATH, WrongUsage, command, image_argument, option
from tierce.cli.output import echo
from tierce.cli.transfer import (
    PLATFORM,
    docker_engine,
    log_format_option,
    open_registries,
    registry_options,
    transfer_view,
)

if TYPE_CHECKING:
    from image.digest import Digest
    from image.platform import Platform
    from transfer.changed import ChangedSource, Part
    from transfer.ports import Source
    from transfer.transports.address import Places

_F = TypeVar("_F", bound=Callable[..., Any])


quiet_option = option("-q", "--quiet", is_flag=True, help="No progress")
platform_option = option("--platform", metavar=PLATFORM, help="Which image of several platforms  [this machine's]")


def _common_options(function: _F) -> _F:
    for add in (
        quiet_option,
        log_format_option,
        platform_option,
        option("-t", "--tag", "destination", required=True, metavar="DESTINATION", help="Where the result goes"),
    ):
        function = add(function)
    return registry_options(function)


class Work(NamedTuple):
    """What a command works with: open places, and what keeps its sources open."""

    settings: Settings
    stack: ExitStack
    places: Places
    platform: Platform
    quiet: bool

    def part(self, text: str) -> tuple[Part, Source]:
        """The image that a user named, and its open source."""
        from transfer.changed import Part
        from transfer.transports.address import open_source

        source = self.stack.enter_context(open_source(text, self.places))
        return Part.of(source, self.platform), source

    def put(self, changed: ChangedSource, destination: str) -> None:
        """Copy the result, and say its digest."""
        from transfer.copy import CopyOptions, copy
        from transfer.transports.address import open_sink

        with transfer_view(self.settings, quiet=self.quiet) as view, open_sink(destination, self.places) as sink:
            copied = copy(changed, sink, CopyOptions(self.platform), view)
        echo(str(copied.descriptor.digest))


@contextmanager
def work_with(settings: Settings, platform: str | None, quiet: bool, flags: dict[str, Any]) -> Iterator[Work]:
    from functools import cache

    from image.platform import Platform
    from tierce.host_platform import host_platform
    from transfer.transports.address import Places

    here = host_platform()
    with ExitStack() as stack:
        store = cache(lambda: stack.enter_context(settings.store()))
        registries = stack.enter_context(open_registries(settings, **flags))
        wanted = Platform.parse(platform, here) if platform else here
        yield Work(settings, stack, Places(store, registries, engine=docker_engine(settings)), wanted, quiet)


def _held(*parts: tuple[Part, Source]) -> dict[Digest, Source]:
    """Where each layer of some images is."""
    return {layer.digest: source for part, source in parts for layer in part.manifest.layers}


def _pairs(flag: str, texts: Sequence[str]) -> Mapping[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not key or not equals for key, equals, _ in pairs):
        raise WrongUsage(f"{flag}: want KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _words(text: str | None) -> tuple[str, ...] | None:
    """A command as crane takes it: words between commas."""
    return None if text is None else tuple(filter(None, text.split(",")))


@command(
    "mutate",
    short_help="Change what an image says of itself",
    examples="""
tierce mutate --label team=web --env DEBUG= -t docker://r.example.com/app:2 docker://r.example.com/app:1
tierce mutate --entrypoint /bin/app,--serve -t app:2 app:1
""",
)
@image_argument("image", metavar="IMAGE")
@option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label")
@option("-a", "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Of the manifest")
@option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="A variable of the environment")
@option("--entrypoint", metavar="WORD[,WORD]", help="The entrypoint; takes the command away")
@option("--cmd", metavar="WORD[,WORD]", help="The command")
@option("-u", "--user", metavar="USER", help="Who runs")
@option("-w", "--workdir", metavar="DIR", help="Where it runs")
@option("--exposed-ports", multiple=True, metavar="PORT[/PROTOCOL]", help="A port that is listened on")
@option("--set-platform", metavar=PLATFORM, help="What it runs on")
@option("--append", "files", multiple=True, type=PATH, metavar="FILE", help="One more layer of a tar")
@_common_options
def mutate(
    settings: Settings, /, image: str, labels: Sequence[str], annotations: Sequence[str], env: Sequence[str],
    entrypoint: str | None, cmd: str | None, user: str | None, workdir: str | None, exposed_ports: Sequence[str],
    set_platform: str | None, files: Sequence[Path], destination: str, platform: str | None, quiet: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Change an image's configuration, and put the result somewhere. Its layers stay where they are."""
    from image.platform import Platform
    from transfer.changed import Change, ChangedSource, LayerFile, appended, mutated

    change = Change(
        _pairs("--label", labels), _pairs("--annotation", annotations), _pairs("--env", env), _words(entrypoint),
        _words(cmd), user, workdir, tuple(exposed_ports), Platform.parse(set_platform) if set_platform else None,
    )  # fmt: skip
    layers = [LayerFile.read(path) for path in files]
    with work_with(settings, platform, quiet, flags) as work:
        part, source = work.part(image)
        changed = mutated(appended(part, layers), change)
        work.put(ChangedSource(changed, _held((part, source)), layers), destination)


@command(
    "append",
    short_help="Add layers to an image",
    examples="""
tierce append -b docker://busybox -f files.tar -t docker://r.example.com/app:1
""",
)
@option("-b", "--base", required=True, metavar="IMAGE", help="What the layers lie on")
@option(
    "-f", "--new-layer", "files", multiple=True, required=True, type=PATH, metavar="FILE",
    help="A tar, compressed or not; the last one is on top",
)  # fmt: skip
@_common_options
def append(
    settings: Settings, /, base: str, files: Sequence[Path], destination: str, platform: str | None, quiet: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Put tars on top of an image as layers. What is not compressed is sent as gzip."""
    from transfer.changed import ChangedSource, LayerFile, appended

    layers = [LayerFile.read(path) for path in files]
    with work_with(settings, platform, quiet, flags) as work:
        part, source = work.part(base)
        work.put(ChangedSource(appended(part, layers), _held((part, source)), layers), destination)


@command(
    "rebase",
    short_help="Put an image on another base",
    examples="""
tierce rebase --old-base docker://debian:12.1 --new-base docker://debian:12.2 -t docker://r.example.com/app:2 docker://r.example.com/app:1
""",
)
@image_argument("image", metavar="IMAGE")
@option("--old-base", "--old_base", required=True, metavar="IMAGE", help="What it was built on")
@option("--new-base", "--new_base", required=True, metavar="IMAGE", help="What it shall lie on")
@_common_options
def rebase(
    settings: Settings, /, image: str, old_base: str, new_base: str, destination: str, platform: str | None,
    quiet: bool, **flags: Any,
) -> None:  # fmt: skip
    """Take the layers of one base from below an image, and put another's there.

    Nothing is run or compared: that the image's own layers fit the new base is yours to know.
    """
    from transfer.changed import ChangedSource, rebased

    with work_with(settings, platform, quiet, flags) as work:
        part, below, above = work.part(image), work.part(old_base), work.part(new_base)
        changed = rebased(part[0], below[0], above[0], new_base.partition("://")[2] or new_base)
        work.put(ChangedSource(changed, _held(above, part)), destination)
