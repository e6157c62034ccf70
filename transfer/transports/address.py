"""Transport names as users type them, and the sources and sinks they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, assert_never

from image.errors import InvalidInput
from image.reference import Reference
from image.value import dataclass, field
from transfer.ports import Sink, Source
from transfer.progress import Progress, silent

if TYPE_CHECKING:
    from store.store import Store
    from transfer.docker_engine import Engine
    from transfer.registries import Registries

Transport = Literal["docker", "oci", "oci-archive", "docker-archive", "docker-daemon", "dir", "store"]

KNOWN: Final[dict[str, str]] = {
    "docker://": "docker", "oci:": "oci", "oci-archive:": "oci-archive",
    "docker-archive:": "docker-archive", "docker-daemon:": "docker-daemon", "dir:": "dir", "store:": "store",
}  # fmt: skip
_UNSUPPORTED: Final = frozenset({"containers-storage", "tarball", "sif", "ostree"})


def parse_transport(text: str) -> tuple[Transport, str]:
    """``docker://alpine`` is ``("docker", "alpine")``; a text without a transport is a name in the store.

    Raises InvalidInput, with the list of those known, for a transport that is none of ours.
    """
    for prefix, transport in KNOWN.items():
        if text.startswith(prefix):
            rest = text.removeprefix(prefix)
            if not rest:
                raise InvalidInput(f"{text!r}: nothing follows the transport")
            return transport, rest  # type: ignore[return-value]  # the values of KNOWN are the choices
    word, colon, rest = text.partition(":")
    if colon and (word in _UNSUPPORTED or rest.startswith(("/", "."))):
        hint = ": write docker://" if word == "docker" else f": use one of {' '.join(KNOWN)}"
        raise InvalidInput(f"transport {word!r} of {text[:200]!r} is not supported{hint}")
    return "store", text


def without_digest(text: str) -> str:
    """A destination as a source that is found by its tag, where it has one: to see what the tag stands for."""
    transport, rest = parse_transport(text)
    if transport != "docker" or (reference := Reference.parse(rest)).tag is None:
        return text
    return f"docker://{reference.with_tag(reference.tag)}"


def split_path(rest: str) -> tuple[str, str]:
    """``path[:what]``: a path ends at its first colon."""
    path, _, wanted = rest.partition(":")
    if not path:
        raise InvalidInput(f"{rest[:200]!r}: the path is missing")
    return path, wanted


@dataclass(frozen=True, slots=True)
class Places:
    """What sources and sinks are opened with. ``store`` is called when it is first needed."""

    store: Callable[[], Store]
    registries: Registries
    progress: Progress = field(default=silent)
    unpack: bool = False
    """Whether images that enter the store are unpacked at once."""
    engine: Callable[[], Engine] | None = None
    """Which docker daemon ``docker-daemon:`` means."""
    shared_blobs: Path | None = None
    """Where ``oci:`` layouts have their blobs, instead of in themselves."""

    def docker(self) -> Engine:
        """Raises InvalidInput where no daemon can be named."""
        if self.engine is None:
            raise InvalidInput("docker-daemon: can't be used here: use docker-archive: with docker save or load")
        return self.engine()


def open_source(text: str, places: Places) -> Source:
    """The source that a user named. Enter it before use."""
    transport, rest = parse_transport(text)
    match transport:
        case "docker":
            from transfer.transports.registry import RegistrySource

            return RegistrySource(Reference.parse(rest), places.registries)
        case "oci":
            from transfer.transports.oci import OciSource

            path, wanted = split_path(rest)
            return OciSource(Path(path), wanted, places.shared_blobs)
        case "oci-archive":
            from transfer.transports.oci_archive import OciArchiveSource

            return OciArchiveSource(*split_path(rest))
        case "docker-archive":
            from transfer.transports.docker_archive import DockerArchiveSource

            return DockerArchiveSource(*split_path(rest))
        case "docker-daemon":
            from transfer.transports.docker_daemon import DockerDaemonSource

            return DockerDaemonSource(rest, places.docker())
        case "dir":
            from transfer.transports.directory import DirectorySource

            return DirectorySource(Path(rest))
        case "store":
            from transfer.transports.local import StoreSource

            return StoreSource(places.store(), rest)
        case _:
            assert_never(transport)


def open_sink(text: str, places: Places, *, all_platforms: bool = False, more_names: Sequence[str] = ()) -> Sink:
    """The sink that a user named. Enter it before use.

    The store takes one platform, as a pull does, unless ``all_platforms``. ``more_names`` are
    further tags in the same repository, or further names of an image in an archive or the store.
    """
    transport, rest = parse_transport(text)
    if more_names and transport in {"oci", "oci-archive", "dir"}:
        raise InvalidInput(f"{text[:200]}: this transport holds one name, and takes no additional tags")
    match transport:
        case "docker":
            from transfer.transports.registry import RegistrySink

            reference = Reference.parse(rest)
            return RegistrySink(reference, places.registries, tags=[tag_of(name, reference) for name in more_names])
        case "oci":
            from transfer.transports.oci import OciSink

            return OciSink(*_new_path(rest), places.shared_blobs)
        case "oci-archive":
            from transfer.transports.oci_archive import OciArchiveSink

            path, ref = _new_path(rest)
            return OciArchiveSink(str(path), ref)
        case "docker-archive":
            from transfer.transports.docker_archive import DockerArchiveSink

            path, ref = _new_path(rest)
            return DockerArchiveSink(str(path), [Reference.parse(name) for name in (ref, *more_names) if name])
        case "docker-daemon":
            from transfer.transports.docker_daemon import DockerDaemonSink

            return DockerDaemonSink([rest, *more_names], places.docker())
        case "dir":
            from transfer.transports.directory import DirectorySink

            return DirectorySink(Path(rest))
        case "store":
            from transfer.transports.local import StoreSink

            names = [Reference.parse(name).with_default_tag() for name in (rest, *more_names)]
            return StoreSink(
                places.store(), names, holds_indexes=all_platforms, unpack=places.unpack, progress=places.progress
            )
        case _:
            assert_never(transport)


def tag_of(name: str, reference: Reference) -> str:
    """``1.0`` or ``host/app:1.0`` as a tag in the repository of ``reference``. Raises InvalidInput."""
    if ":" not in name and "/" not in name:
        return str(reference.with_tag(name).tag)
    other = Reference.parse(name)
    if other.repository != reference.repository or not other.tag or other.digest:
        raise InvalidInput(f"additional tag {name[:200]!r}: want a tag of {reference.familiar_repository}")
    return other.tag


def _new_path(rest: str) -> tuple[Path, str]:
    path, ref = split_path(rest)
    if re.fullmatch(r"@\d*", ref):
        raise InvalidInput(f"{rest[:200]!r}: a number names an image to read, not one to write")
    return Path(path), ref
