"""What a build's outputs say, done: images named and pushed, archives, directories.

``builder.output_words`` decides what is wanted and ``builder.outputs`` what an image consists
of; here that is moved with the transports. Everything an output needs is held by the build's
session, so nothing of it has to be visible in the store.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, assert_never

from builder.output_form import ImageForm
from builder.output_words import ArchiveOutput, CacheOnly, ImageOutput, LocalOutput, Output, TarOutput
from builder.outputs import BuiltImage, write_image, write_index
from builder.progress import Progress, StepDone, StepFailed, StepStarted
from image.descriptor import Descriptor
from image.errors import InvalidInput, StorageError, TierceError
from image.platform import Platform
from image.reference import Reference
from image.value import dataclass, field
from store.content import storage_errors

if TYPE_CHECKING:
    from store.store import Session
    from tierce.build.building import SolvedBuild
    from transfer.ports import Sink
    from transfer.registries import Registries


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What outputs are done with. ``registries`` opens connections when the first is needed.

    ``members`` gives what is added to the configuration of an image (inline cache records),
    ``provenance`` what is attested of one in OCI's form. With ``index`` one platform has an index, too.
    """

    session: Session
    tags: tuple[Reference, ...]
    now_s: float
    epoch_s: int | None
    here: Platform
    registries: Callable[[], Registries]
    progress: Progress
    clock: Callable[[], float]
    members: Callable[[SolvedBuild], dict[str, object] | None] = lambda _: None
    provenance: Callable[[SolvedBuild], dict[str, object]] | None = None
    index: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """An image in one form: ``target`` is its manifest, or the index of several platforms."""

    target: Descriptor
    images: tuple[BuiltImage, ...]
    provenance: tuple[Mapping[str, object], ...] = ()

    @property
    def id(self) -> str:
        """The image id that docker would show: the config of one platform, else the index."""
        return str(self.images[0].id.digest if len(self.images) == 1 else self.target.digest)


@dataclass(slots=True)
class Outcome:
    """What came out. ``written`` is the first image, if any output is one; ``names`` where it can be found."""

    written: Written | None = None
    names: list[Reference] = field(default_factory=list)

    def metadata(self) -> Mapping[str, object]:
        """The document of ``--metadata-file``, with buildx's members."""
        if self.written is None:
            return {}
        target = self.written.target
        found: dict[str, object] = {
            "containerimage.descriptor": target.to_json(),
            "containerimage.digest": str(target.digest),
        }
        if len(self.written.images) == 1:
            found["containerimage.config.digest"] = str(self.written.images[0].id.digest)
        for image, provenance in zip(self.written.images, self.written.provenance, strict=False):
            platform = f"/{image.config.platform}" if len(self.written.images) > 1 else ""
            found[f"buildx.build.provenance{platform}"] = provenance
        if self.names:
            found["image.name"] = ",".join(str(name) for name in self.names)
        return found


def perform(outputs: Sequence[Output], builds: Sequence[SolvedBuild], around: Surroundings) -> Outcome:
    """Do every output of a finished build, one platform or several.

    Raises InvalidInput, StorageError, RegistryError; what was done before stays done.
    """
    work = _Performance(builds, around)
    for output in outputs:
        match output:
            case ImageOutput():
                work.image(output)
            case ArchiveOutput():
                work.archive(output)
            case LocalOutput():
                work.local(output)
            case TarOutput():
                work.tar(output)
            case CacheOnly():
                pass
            case _:
                assert_never(output)
    return work.outcome


class _Performance:
    def __init__(self, builds: Sequence[SolvedBuild], around: Surroundings) -> None:
        self._builds = builds
        self._around = around
        self._store = around.session.store
        self._written: dict[str, Written] = {}
        self.outcome = Outcome()

    def _write(self, form: ImageForm) -> Written:
        """The image in a form, its documents in the store; outputs of the same form share it."""
        known = self._written.get(repr(form))
        if known is not None:
            return known
        around = self._around
        images = tuple(
            write_image(
                around.session, one.graph, one.stack, now_s=around.now_s, epoch_s=around.epoch_s, form=form,
                members=around.members(one),
            )
            for one in self._builds
        )  # fmt: skip
        target = images[0].manifest
        provenance: tuple[dict[str, object], ...] = ()
        if around.provenance is not None and not form.docker:
            provenance = tuple(map(around.provenance, self._builds))
        if len(images) > 1 or provenance or around.index:
            attested = self._attest(images, provenance)
            target = write_index(around.session, images, epoch_s=around.epoch_s, form=form, attestations=attested)
        written = self._written[repr(form)] = Written(target, images, provenance)
        self.outcome.written = self.outcome.written or written
        return written

    def _attest(
        self, images: Sequence[BuiltImage], provenance: Sequence[Mapping[str, object]]
    ) -> tuple[Descriptor, ...]:
        """What is said of each image, as manifests in the store."""
        if not provenance:
            return ()
        from builder.attestations import write_attestation
        from builder.provenance import PREDICATE_TYPE, package_url

        def names(image: BuiltImage) -> list[str]:
            return [package_url(tag, image.config.platform) for tag in self._around.tags] or ["_"]

        return tuple(
            write_attestation(self._around.session, image, names(image), PREDICATE_TYPE, said)
            for image, said in zip(images, provenance, strict=True)
        )

    def image(self, output: ImageOutput) -> None:
        names = self._names(output.names)
        if output.push and not names:
            raise InvalidInput("a push needs a name: give one with --tag, or name= in the output")
        written = self._write(output.form)
        self._store.add_image(written.target, [] if output.by_digest else names)
        self.outcome.names += [name for name in names if name not in self.outcome.names]
        for name in names if output.push else ():
            from transfer.transports.registry import RegistrySink

            bare = Reference(name.domain, name.path, None, written.target.digest) if output.by_digest else name
            with self._told(f"pushing {name.familiar}"):
                self._copy(written, RegistrySink(bare, self._around.registries()))

    def archive(self, output: ArchiveOutput) -> None:
        names = self._names(output.names)
        written = self._write(output.form)
        _refuse_terminal(output.dest)
        with self._told(f"exporting to {output.kind} image format"):
            self._copy(written, _archive_sink(output, output.dest, names))

    def local(self, output: LocalOutput) -> None:
        from store.export import export_directory

        target = Path(output.dest)
        with storage_errors(f"write {target}"):
            target.mkdir(parents=True, exist_ok=True)
            if output.delete:
                _empty(target)
        owner = (os.geteuid(), os.getegid())
        for build in self._builds:
            place = target / self._folder(build) if self._splits(output.split) else target
            with storage_errors(f"write {place}"):
                place.mkdir(exist_ok=True)
            directories = build.directories(self._store)
            with self._told(f"exporting to {place}"):
                export_directory(self._store.layers, directories, place, clamp_s=self._around.epoch_s, owner=owner)

    def tar(self, output: TarOutput) -> None:
        from store.export import export_tar

        _refuse_terminal(output.dest)
        with self._told("exporting to a tar"), _tar_file(output.dest) as file:
            directories = self._builds[0].directories(self._store)
            export_tar(self._store.layers, directories, _writer(file, output.dest), clamp_s=self._around.epoch_s)

    def _splits(self, wanted: bool | None) -> bool:
        return len(self._builds) > 1 if wanted is None else wanted

    def _folder(self, build: SolvedBuild) -> str:
        return str(build.graph.platform).replace("/", "_")

    def _names(self, more: Sequence[str]) -> list[Reference]:
        given = [Reference.parse(name).with_default_tag() for name in more]
        return list(dict.fromkeys([*self._around.tags, *given]))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Show work on an output as a step is shown."""
        clock, progress = self._around.clock, self._around.progress
        progress(StepStarted(what, what, clock()))
        try:
            yield
        except TierceError as error:
            progress(StepFailed(what, what, error, clock()))
            raise
        progress(StepDone(what, what, clock()))

    def _copy(self, written: Written, sink: Sink) -> None:
        from tierce.build.built_source import BuiltSource
        from transfer.copy import CopyOptions, copy

        with BuiltSource(self._store, written.target) as source, sink:
            copy(source, sink, CopyOptions(self._around.here))


def _archive_sink(output: ArchiveOutput, dest: str, names: Sequence[Reference]) -> Sink:
    from transfer.transports.docker_archive import DockerArchiveSink
    from transfer.transports.oci import OciSink
    from transfer.transports.oci_archive import OciArchiveSink

    ref = names[0].familiar if names else ""
    if output.directory:
        return OciSink(Path(dest), ref)
    if output.kind == "oci":
        return OciArchiveSink(dest, ref)
    return DockerArchiveSink(dest, names)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refuse_terminal(dest: str) -> None:
    if dest == "-" and sys.stdout.isatty():
        raise InvalidInput("refusing to write an archive to a terminal: give dest=FILE, or redirect")


@contextmanager
def _tar_file(dest: str) -> Iterator[BinaryIO]:
    """Where a tar goes: standard output, or a file that appears whole or not at all."""
    if dest == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    from transfer.transports.files import NewFile

    with NewFile(Path(os.path.abspath(dest))) as new:
        with open(new.fd, "wb", closefd=False, buffering=0) as file:
            yield file
        new.commit()


def _writer(file: BinaryIO, dest: str) -> Callable[[bytes], None]:
    def write(piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise StorageError(f"write {dest}: {(error.strerror or str(error)).lower()}") from error

    return write
