"""What a registry holds, without pulling: ``list-tags``, ``digest`` and remote ``tag``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from image.reference import Reference
from tierce.cli.command import Settings
from tierce.cli.declare import PATH, WrongUsage, argument, command, option
from tierce.cli.output import echo
from tierce.cli.registry_flags import login_options, one_side
from tierce.cli.transfer import PLATFORM, open_registries, registry_options


def parse_name(text: str) -> Reference:
    """``docker://host/app`` or ``host/app``. Raises InvalidReference."""
    return Reference.parse(text.removeprefix("docker://"))


@command(
    "list-tags",
    short_help="List the tags of a repository",
    examples="""
tierce list-tags docker://registry.example.com/team/app
tierce list-tags -q busybox
""",
)
@argument("name", metavar="REPOSITORY")
@option("-q", "--quiet", is_flag=True, help="A tag a line, and nothing else")
@option("-O", "--omit-digest-tags", is_flag=True, help="Without tags that stand beside a digest, as cosign's do")
@login_options
def list_tags(settings: Settings, /, name: str, quiet: bool, omit_digest_tags: bool, **flags: Any) -> None:
    """List the tags of a repository in a registry, as JSON."""
    reference = parse_name(name)
    if reference.tag or reference.digest:
        raise WrongUsage(f"{name}: want a repository, without a tag or a digest")
    with open_registries(settings, **one_side(flags)) as registries:
        tags = registries.repository(reference).tags()
    if omit_digest_tags:
        from transfer.digest_tags import digest_of

        tags = [tag for tag in tags if digest_of(tag) is None]
    if quiet:
        echo("".join(f"{tag}\n" for tag in tags), nl=False)
    else:
        echo(json.dumps({"Repository": reference.repository, "Tags": tags}, indent=4))


@command(
    "digest",
    short_help="Print the digest of an image in a registry",
    examples="""
tierce digest docker://busybox:1.36
tierce digest --platform linux/arm64 busybox
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@option("--platform", metavar=PLATFORM, help="Of this image of several platforms  [of all together]")
@registry_options
def digest(settings: Settings, /, name: str, platform: str | None, **flags: Any) -> None:
    """Print what a name in a registry stands for, by one request that fetches nothing."""
    from image.errors import ReferenceNotFound
    from image.platform import Platform
    from tierce.host_platform import host_platform
    from transfer.inspection import look
    from transfer.transports.registry import RegistrySource

    reference = parse_name(name).with_default_tag()
    with open_registries(settings, **flags) as registries:
        if platform:
            source = RegistrySource(reference, registries)
            echo(str(look(source, Platform.parse(platform, host_platform())).target.digest))
            return
        found = registries.repository(reference).head_manifest(str(reference.digest or reference.tag))
    if found is None:
        raise ReferenceNotFound(f"image {reference.familiar} not found in registry {reference.domain}")
    echo(str(found.digest))


@command(
    "manifest-digest",
    short_help="Print the digest of a manifest's file",
    examples="""
tierce manifest-digest manifest.json
""",
)
@argument("file", type=PATH, metavar="FILE")
def manifest_digest(_settings: Settings, /, file: Path) -> None:
    """Print the digest of a file that holds a manifest, as skopeo does."""
    from image.digest import Digest
    from image.document import MAX_DOCUMENT_SIZE
    from image.errors import ReferenceNotFound
    from image.manifest import decode_manifest
    from transfer.transports.files import read_limited

    raw = read_limited(file, MAX_DOCUMENT_SIZE, lambda: ReferenceNotFound(f"manifest {file} does not exist"))
    decode_manifest(raw, "")
    echo(str(Digest.of(raw)))


def tag_remote(settings: Settings, source: str, target: str, flags: dict[str, Any]) -> None:
    """Let a tag of a repository stand for what another name there does, without moving a blob.

    ``target`` is a tag, or a name in the same repository. Raises UsageError, ReferenceNotFound.
    """
    from transfer.transports.address import tag_of

    reference = parse_name(source).with_default_tag()
    wanted = tag_of(target.removeprefix("docker://"), reference)
    with open_registries(settings, **flags) as registries:
        _, manifest = registries.repository(reference).fetch_manifest(str(reference.digest or reference.tag))
        registries.repository(reference, push=True).put_manifest(wanted, manifest)
