"""``delete`` and ``catalog``: less of what a registry holds, and all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from image.reference import Reference
from tierce.cli.command import Settings, confirm
from tierce.cli.declare import Ended, argument, command, option
from tierce.cli.foreign_flags import refused
from tierce.cli.output import echo
from tierce.cli.registry_flags import login_options, one_side
from tierce.cli.repositories import parse_name
from tierce.cli.transfer import open_registries, registry_options

if TYPE_CHECKING:
    from image.digest import Digest
    from transfer.registry.client import Repository

_WORKERS: Final = 8
_SHOWN: Final = 10
"""Tags that a warning names."""


@command(
    "delete",
    short_help="Delete an image from a registry",
    examples="""
tierce delete docker://registry.example.com/team/app:1.0
tierce delete --force registry.example.com/team/app@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@option("-f", "--force", "-y", "--yes", is_flag=True, help="Do not ask when other tags go with it")
@refused("--daemon-host", instead="images of a docker daemon are removed by docker rmi")
@refused("--shared-blob-dir", instead="images in files are removed by rm")
@login_options
def delete(settings: Settings, /, name: str, force: bool, **flags: Any) -> None:
    """Delete an image from a registry: its manifest, and with that every tag that stands for it.

    Other tags of the same image are named first. The registry frees the space when it wants to.
    """
    from image.errors import ReferenceNotFound

    reference = parse_name(name).with_default_tag()
    with open_registries(settings, **one_side(flags)) as registries:
        repository = registries.repository_to_delete_from(reference)
        found = repository.head_manifest(str(reference.digest or reference.tag))
        if found is None:
            raise ReferenceNotFound(f"image {reference.familiar} not found in registry {reference.domain}")
        if not force:
            others = [tag for tag in _tags_of(repository, found.digest) if tag != reference.tag]
            if others and not confirm(_warning(reference, others)):
                raise Ended(1)
        registries.delete_image(reference, repository, found.digest)
    echo(f"Deleted: {reference.repository}@{found.digest}")


def _warning(reference: Reference, others: list[str]) -> str:
    shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    return (
        f"WARNING! {reference.familiar} is also tagged {shown}: these tags will be gone too (--force does not ask).\n"
        "Are you sure you want to continue?"
    )


def _tags_of(repository: Repository, wanted: Digest) -> list[str]:
    """The tags that stand for a digest; none, and a warning, where the registry does not list tags."""
    from concurrent.futures import ThreadPoolExecutor

    from image.errors import NotFound, RegistryError

    try:
        tags = sorted(repository.tags())
    except (RegistryError, NotFound) as error:
        echo(f"WARNING! Other tags of the image may go with it: {error}", err=True)
        return []
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="tags") as pool:
        found = list(pool.map(repository.head_manifest, tags))
    return [tag for tag, target in zip(tags, found, strict=True) if target and target.digest == wanted]


@command(
    "catalog",
    short_help="List the repositories of a registry",
    examples="""
tierce catalog registry.example.com:5000
""",
)
@argument("host", metavar="HOST[:PORT]")
@registry_options
def catalog(settings: Settings, /, host: str, **flags: Any) -> None:
    """List the repositories of a registry, one a line. Public registries do not tell."""
    with open_registries(settings, **flags) as registries:
        names = registries.catalog(host.removeprefix("docker://").rstrip("/"))
    echo("".join(f"{name}\n" for name in names), nl=False)
