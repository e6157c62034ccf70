"""``manifest``: lists of images for several platforms, made in the store and pushed, in podman's and docker's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from image.reference import Reference
from tierce.cli.command import Settings
from tierce.cli.declare import Choice, Ended, WrongUsage, argument, command, image_argument, option
from tierce.cli.output import echo
from tierce.cli.transfer import docker_engine, log_format_option, open_registries, registry_options, transfer_view

if TYPE_CHECKING:
    from image.descriptor import Descriptor
    from image.digest import Digest
    from store.store import Store
    from transfer.image_lists import Annotation
    from transfer.ports import Source
    from transfer.registries import Registries
    from transfer.transports.address import Places

_F = TypeVar("_F", bound=Callable[..., Any])


def annotation_options(function: _F) -> _F:
    """What to say of an entry."""
    for add in (
        option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="An annotation of the entry"),
        option("--os-features", multiple=True, metavar="FEATURE", help="Features of the system"),
        option("--os-version", default="", metavar="VERSION", help="Version of the system"),
        option("--variant", default="", help="Variant of the architecture"),
        option("--os", default="", help="System"),
        option("--arch", default="", help="Architecture"),
    ):  # fmt: skip
        function = add(function)
    return function


def _annotation(flags: dict[str, Any]) -> Annotation:
    """Take ``annotation_options`` out of a command's flags."""
    from transfer.image_lists import Annotation

    pairs = [text.partition("=") for text in flags.pop("annotations")]
    if any(not key or not equals for key, equals, _ in pairs):
        raise WrongUsage("--annotation: want KEY=VALUE")
    return Annotation(
        flags.pop("os"), flags.pop("arch"), flags.pop("variant"), flags.pop("os_version"), flags.pop("os_features"),
        {key: value for key, _, value in pairs},
    )  # fmt: skip


class _World(NamedTuple):
    """The store and the ways into it, for one command."""

    store: Store
    registries: Registries
    places: Places

    def source(self, text: str) -> Source:
        """An image by name: with a transport, else in the store if it is there, else in its registry."""
        from transfer.transports.address import KNOWN, open_source

        if any(text.startswith(prefix) for prefix in KNOWN):
            return open_source(text, self.places)
        here = text.startswith("sha256:") or self.store.metadata.name(str(_list_name(text))) is not None
        return open_source(f"store:{text}" if here else f"docker://{text}", self.places)

    def digests(self, text: str) -> set[Digest]:
        """What a name stands for: a manifest, or an index and what that names."""
        from image.digest import Digest
        from image.manifest import Index

        if text.startswith("sha256:"):
            return {Digest(text)}
        with self.source(text) as source:
            root = source.root()
            document = source.manifest(root)
        below = document.manifests if isinstance(document, Index) else ()
        return {root.digest, *(child.digest for child in below)}


@contextmanager
def _world(settings: Settings, flags: dict[str, Any]) -> Iterator[_World]:
    from transfer.transports.address import Places

    with settings.store() as store, open_registries(settings, **flags) as registries:
        yield _World(store, registries, Places(lambda: store, registries, engine=docker_engine(settings)))


def _list_name(text: str) -> Reference:
    return Reference.parse(text).with_default_tag()


@command(
    "create",
    short_help="Make a manifest list",
    examples="""
tierce manifest create app:all
tierce manifest create app:all app:amd64 docker://registry.example.com/app:arm64
""",
)
@argument("name", metavar="LIST")
@argument("images", nargs=-1, metavar="[IMAGE...]")
@option("--all", "everything", is_flag=True, help="All images of an IMAGE that is a list itself")
@option("-a", "--amend", is_flag=True, help="Add to a list that exists")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
@registry_options
def create(
    settings: Settings, /, name: str, images: Sequence[str], everything: bool, amend: bool, quiet: bool, **flags: Any
) -> None:
    """Make a list of images in the store, for this machine's platform each, unless --all."""
    from transfer.image_lists import Annotation, create_list

    with _world(settings, flags) as world:
        target = create_list(world.store, _list_name(name), amend=amend)
        for image in images:
            target = _add(settings, world, name, image, Annotation(), everything=everything, quiet=quiet)
    echo(str(target.digest))


@command(
    "add",
    short_help="Add images to a manifest list",
    examples="""
tierce manifest add app:all docker://registry.example.com/app:arm64
tierce manifest add --variant v7 app:all app:arm
""",
)
@image_argument("name", metavar="LIST")
@argument("images", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@option("--all", "everything", is_flag=True, help="All images of an IMAGE that is a list itself")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
@annotation_options
@registry_options
def add(settings: Settings, /, name: str, images: Sequence[str], everything: bool, quiet: bool, **flags: Any) -> None:
    """Copy images into the store, where they are not there yet, and list them.

    IMAGE is a name in the store, else in a registry, or has a transport.
    """
    annotation = _annotation(flags)
    with _world(settings, flags) as world:
        for image in images:
            target = _add(settings, world, name, image, annotation, everything=everything, quiet=quiet)
    echo(str(target.digest))


def _add(
    settings: Settings, world: _World, name: str, image: str, annotation: Annotation, *, everything: bool, quiet: bool
) -> Descriptor:
    from tierce.host_platform import host_platform
    from transfer.copy import CopyOptions
    from transfer.image_lists import add_to_list

    here = host_platform()
    options = CopyOptions(here, None if everything else here)
    with transfer_view(settings, quiet=quiet) as view, world.source(image) as source:
        return add_to_list(world.store, _list_name(name), source, options, annotation, view)


@command(
    "annotate",
    short_help="Say more of an image in a manifest list",
    examples="""
tierce manifest annotate --arch arm --variant v7 app:all app:arm
""",
)
@image_argument("name", metavar="LIST")
@argument("image", metavar="IMAGE")
@annotation_options
@registry_options
def annotate(settings: Settings, /, name: str, image: str, **flags: Any) -> None:
    """Say which platform an image of a list is for, or annotate it. IMAGE is its digest or a name of it."""
    from transfer.image_lists import change_list, entry_named, find_list

    annotation = _annotation(flags)
    with _world(settings, flags) as world:
        _, index = find_list(world.store, _list_name(name))
        wanted = entry_named(index.manifests, world.digests(image), image).digest
        target = change_list(
            world.store,
            _list_name(name),
            lambda entries: [annotation.apply(entry) if entry.digest == wanted else entry for entry in entries],
        )
    echo(str(target.digest))


@command(
    "remove",
    short_help="Take an image off a manifest list",
    examples="""
tierce manifest remove app:all app:arm
""",
)
@image_argument("name", metavar="LIST")
@argument("image", metavar="IMAGE")
@registry_options
def remove(settings: Settings, /, name: str, image: str, **flags: Any) -> None:
    """Take an image off a list. IMAGE is its digest or a name of it."""
    from transfer.image_lists import change_list, entry_named, find_list

    with _world(settings, flags) as world:
        _, index = find_list(world.store, _list_name(name))
        wanted = entry_named(index.manifests, world.digests(image), image).digest
        target = change_list(
            world.store, _list_name(name), lambda entries: [entry for entry in entries if entry.digest != wanted]
        )
    echo(str(target.digest))


@command(
    "inspect",
    short_help="Show a manifest list",
    examples="""
tierce manifest inspect app:all
tierce manifest inspect docker://busybox
""",
)
@image_argument("name", metavar="LIST")
@registry_options
def inspect(settings: Settings, /, name: str, **flags: Any) -> None:
    """Show the document of a list, or of an image: in the store, else in a registry."""
    with _world(settings, flags) as world, world.source(name) as source:
        raw = source.manifest(source.root()).raw
    echo(json.dumps(json.loads(raw), indent=4, ensure_ascii=False))


@command(
    "exists",
    short_help="Tell by the exit code whether a manifest list exists",
    examples="""
tierce manifest exists app:all || tierce manifest create app:all
""",
)
@image_argument("name", metavar="LIST")
def exists(settings: Settings, name: str) -> None:
    """Exit with 0 when the store has this list, else with 1."""
    from image.errors import InvalidInput, ReferenceNotFound
    from transfer.image_lists import find_list

    with settings.store() as store:
        try:
            find_list(store, _list_name(name))
        except (ReferenceNotFound, InvalidInput):
            raise Ended(1) from None


@command(
    "rm",
    short_help="Remove manifest lists",
    examples="""
tierce manifest rm app:all
""",
)
@image_argument("names", nargs=-1, required=True, metavar="LIST [LIST...]")
def rm(settings: Settings, names: Sequence[str]) -> None:
    """Remove lists from the store. Images that have names of their own stay."""
    with settings.store() as store:
        for name in names:
            _remove_list(store, name)


def _remove_list(store: Store, name: str) -> None:
    from tierce.images import remove as remove_image
    from transfer.image_lists import find_list

    find_list(store, _list_name(name))
    for line in remove_image(store, name).untagged:
        echo(f"Untagged: {line}")
    store.collect()


@command(
    "push",
    short_help="Push a manifest list and its images",
    examples="""
tierce manifest push app:all docker://registry.example.com/app:1.0
tierce manifest push --purge registry.example.com/app:1.0
""",
)
@image_argument("name", metavar="LIST")
@argument("destination", required=False, default="")
@option("--all", is_flag=True, expose_value=False, help="Accepted: the images always go along")
@option("-f", "--format", "form", type=Choice(("oci", "v2s2")), help="Manifests of this kind  [as they are]")
@option("--digestfile", metavar="FILE", help="Write the digest of the list to a file")
@option("-p", "--purge", "--rm", is_flag=True, help="Remove the list from the store afterwards")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
@registry_options
def push(
    settings: Settings, /, name: str, destination: str, form: str | None, digestfile: str | None, purge: bool,
    quiet: bool, **flags: Any,
) -> None:  # fmt: skip
    """Push a list with all its images, to DESTINATION or to its own name."""
    from tierce.cli.copy import conversion, copy_options
    from tierce.cli.registry_flags import retry_policy
    from transfer.copy import copy
    from transfer.image_lists import find_list
    from transfer.transports.address import KNOWN, open_sink
    from transfer.transports.local import StoreSource

    target = destination or name
    if not any(target.startswith(prefix) for prefix in KNOWN):
        target = f"docker://{target}"
    options = copy_options((), conversion(form, None, None), retry_policy(None, None))
    with _world(settings, flags) as world, ExitStack() as stack:
        find_list(world.store, _list_name(name))
        view = stack.enter_context(transfer_view(settings, quiet=quiet))
        with StoreSource(world.store, name) as source, open_sink(target, world.places, all_platforms=True) as sink:
            copied = copy(source, sink, options, view)
        if purge:
            _remove_list(world.store, name)
    if digestfile:
        with open(digestfile, "w", encoding="ascii") as file:
            file.write(str(copied.descriptor.digest))
    echo(str(copied.descriptor.digest))
