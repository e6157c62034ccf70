"""``artifact``: files in a registry, and what refers to an image; in ORAS's words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from image.reference import Reference
from tierce.cli.command import Settings
from tierce.cli.declare import PATH, Choice, WrongUsage, argument, command, option
from tierce.cli.output import echo
from tierce.cli.registry_flags import retry_options, retry_policy
from tierce.cli.repositories import parse_name
from tierce.cli.transfer import log_format_option, open_registries, registry_options, transfer_view

if TYPE_CHECKING:
    from image.descriptor import Descriptor
    from transfer.artifacts import Referrer

_REACH: Final = ("authfile", "creds", "cert_dir", "tls_verify")
_F = TypeVar("_F", bound=Callable[..., Any])


def _content_options(function: _F) -> _F:
    for add in (
        argument("files", nargs=-1, metavar="FILE[:MEDIA-TYPE]..."),
        option("--artifact-type", metavar="TYPE", default="", help="What the artifact is"),
        option("-a", "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="For the manifest"),
        option("--config", metavar="FILE[:MEDIA-TYPE]", help="Configuration of the artifact  [an empty one]"),
        option("-q", "--quiet", is_flag=True, help="Only the digest"),
        log_format_option,
    ):
        function = add(function)
    return function


class _Content(NamedTuple):
    """What ``_content_options`` were set to."""

    files: Sequence[str]
    artifact_type: str
    annotations: Sequence[str]
    config: str | None

    @classmethod
    def take(cls, flags: Mapping[str, Any]) -> _Content:
        content = cls(*(flags[field] for field in cls._fields))
        if not any(content):
            raise WrongUsage("nothing to push: name files, or an --artifact-type")
        return content

    def manifest_annotations(self, now_s: float, environ: Mapping[str, str]) -> dict[str, str]:
        """Those given, and when it was made: SOURCE_DATE_EPOCH's moment, where that is set."""
        from transfer.artifacts import CREATED

        made_s = int(environ.get("SOURCE_DATE_EPOCH") or now_s)
        found = {CREATED: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made_s))}
        for word in self.annotations:
            key, equals, value = word.partition("=")
            if not key or not equals:
                raise WrongUsage(f"--annotation {word}: want KEY=VALUE")
            found[key] = value
        return found


@command(
    "push",
    short_help="Push files to a registry",
    examples="""
tierce artifact push registry.example.com/team/chart:1 chart.tgz:application/gzip
tierce artifact push --artifact-type application/vnd.example.sbom registry.example.com/app-sbom:1 sbom.json
""",
)
@argument("name", metavar="NAME[:TAG]")
@_content_options
@retry_options
@registry_options
def push(settings: Settings, /, name: str, quiet: bool, **flags: Any) -> None:
    """Push files under a tag. What the registry has already is not sent."""
    _push(settings, parse_name(name).with_default_tag(), flags, quiet=quiet, attached=False)


@command(
    "attach",
    short_help="Push files as something that is about an image",
    examples="""
tierce artifact attach --artifact-type application/vnd.example.sbom registry.example.com/app:1 sbom.json
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@_content_options
@retry_options
@registry_options
def attach(settings: Settings, /, name: str, quiet: bool, **flags: Any) -> None:
    """Push files that refer to an image, which 'discover' and copies of the image then find."""
    if not flags["artifact_type"]:
        raise WrongUsage("attach needs --artifact-type, which tells what the files are")
    _push(settings, parse_name(name).with_default_tag(), flags, quiet=quiet, attached=True)


def _push(settings: Settings, reference: Reference, flags: Mapping[str, Any], *, quiet: bool, attached: bool) -> None:
    from image.errors import ReferenceNotFound
    from transfer import artifacts

    content = _Content.take(flags)
    retry = retry_policy(flags["retry_times"], flags["retry_delay"])
    reach = {name: flags[name] for name in _REACH}
    with open_registries(settings, retry=retry, **reach) as registries, transfer_view(settings, quiet=quiet) as view:
        subject = None
        if attached:
            named = str(reference.digest or reference.tag)
            subject = registries.repository(reference).head_manifest(named)
            if subject is None:
                raise ReferenceNotFound(f"{reference.familiar} not found: there is nothing to attach to")
        pushed = artifacts.push(
            reference,
            [artifacts.FileToPush.parse(text) for text in content.files],
            registries,
            artifact_type=content.artifact_type,
            annotations=content.manifest_annotations(settings.clock(), settings.environ),
            config=artifacts.FileToPush.parse(content.config) if content.config else None,
            subject=subject,
            retry=retry,
            progress=view,
        )
        view.end([f"{'Attached to' if attached else 'Pushed'} {reference}"])
    echo(str(pushed.descriptor.digest))


@command(
    "pull",
    short_help="Download the files of an artifact",
    examples="""
tierce artifact pull registry.example.com/team/chart:1
tierce artifact pull -o out registry.example.com/app@sha256:…
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@option("-o", "--output", metavar="DIR", type=PATH, default=Path(), help="Where to  [here]")
@option("-k", "--keep-old-files", is_flag=True, help="Do not replace files that exist: fail")
@option("-q", "--quiet", is_flag=True, help="No progress")
@log_format_option
@registry_options
def pull(settings: Settings, /, name: str, output: Path, keep_old_files: bool, quiet: bool, **reach: Any) -> None:
    """Write an artifact's files below a directory, and print their names."""
    from transfer import artifacts

    with open_registries(settings, **reach) as registries, transfer_view(settings, quiet=quiet) as view:
        root, files = artifacts.pull(
            parse_name(name).with_default_tag(), output, registries, keep_old=keep_old_files, progress=view
        )
        view.end([f"Digest: {root.digest}"])
    for path in files:
        echo(str(path))


@command(
    "discover",
    short_help="Show what refers to an image",
    examples="""
tierce artifact discover registry.example.com/app:1
tierce artifact discover --artifact-type application/vnd.example.sbom --format json registry.example.com/app:1
""",
)
@argument("name", metavar="NAME[:TAG|@DIGEST]")
@option("--artifact-type", metavar="TYPE", default="", help="Only what is of this type")
@option("--format", "form", type=Choice(("tree", "table", "json")), default="tree", help="How  [tree]")
@registry_options
def discover(settings: Settings, /, name: str, artifact_type: str, form: str, **reach: Any) -> None:
    """Show signatures, attestations and artifacts that refer to an image, and what refers to those."""
    from transfer import artifacts

    reference = parse_name(name).with_default_tag()
    with open_registries(settings, **reach) as registries:
        subject, found = artifacts.discover(reference, registries, artifact_type=artifact_type)
    match form:
        case "json":
            members = subject.to_json() | {"referrers": [_members(one) for one in found]}
            echo(json.dumps({"reference": f"{reference.repository}@{subject.digest}"} | members, indent=2))
        case "table":
            rows = [(_kind(one.descriptor), str(one.descriptor.digest)) for one in found]
            width = max((len(kind) for kind, _ in rows), default=0)
            for kind, digest in rows:
                echo(f"{kind:<{width}}   {digest}")
        case _:
            echo(f"{reference.repository}@{subject.digest}")
            for line in _tree(found):
                echo(line)


def _kind(descriptor: Descriptor) -> str:
    return descriptor.artifact_type or "<unknown>"


def _members(referrer: Referrer) -> dict[str, Any]:
    return referrer.descriptor.to_json() | {"referrers": [_members(one) for one in referrer.referrers]}


def _tree(referrers: Sequence[Referrer], indent: str = "") -> list[str]:
    lines = []
    for position, one in enumerate(referrers, start=1):
        last = position == len(referrers)
        lines.append(f"{indent}{'└──' if last else '├──'} {_kind(one.descriptor)} {one.descriptor.digest}")
        lines += _tree(one.referrers, indent + ("    " if last else "│   "))
    return lines
