"""Where a build's files come from: directories, tars on standard input, URLs, git repositories.

All but the user's own directories are laid out in directories of the session, and gone with
it. What is inside them is a stranger's: it is read through a directory descriptor, and no
link in it leads out.

Spec: dockerfile.md 5 (inputs), 2 (".dockerignore").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from builder.context import Context
from builder.dockerfile.remotes import GitSource, UrlSource, parse_remote, shown
from builder.named import NamedContext, NamedFiles, NamedImage, context_name
from builder.origin import Origin
from builder.ports import Downloaded, Downloads, Repositories
from builder.tree import Tree
from image.errors import InvalidArchive, InvalidInput, NotFound, SourceNotFound
from image.reference import Reference
from image.value import dataclass, replace
from store.store import Session

DOCKERFILE_NAMES: Final = ("Dockerfile", "Containerfile", "dockerfile")
_MAX_DOCKERFILE: Final = 10 << 20
_BLOCK: Final = 1 << 18
_MAX_TAIL: Final = 1 << 20
"""Bytes behind the end of a tar that are read, so that whoever writes it can end in peace."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Context and Dockerfile. ``name`` is for messages, ``path`` where it lies if it is the user's.

    A directory of the user's is a path: its ignore file counts, as that of one made for this build does not.
    ``origin`` is where a context on the network was, and what it was.
    """

    context: Path | Context
    dockerfile: bytes
    name: str
    path: Path | None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """An image in an OCI layout: the only one, or that called ``wanted``, a ref name or a digest."""

    path: Path
    wanted: str


@dataclass(frozen=True, slots=True)
class Named:
    """What ``--build-context`` gave: ``meanings`` for the planner, and where each is found.

    ``layouts`` are known to the planner as images of these names.
    """

    meanings: Mapping[str, NamedContext]
    files: Mapping[str, Context]
    layouts: Mapping[Reference, Layout]


class ContextSources:
    """Gets a build's inputs, into directories of ``session`` (opened when needed) where they are not local."""

    def __init__(
        self, session: Callable[[], Session], downloads: Downloads, repositories: Repositories, standard_input: BinaryIO
    ) -> None:
        self._session = session
        self._downloads = downloads
        self._repositories = repositories
        self._standard_input = standard_input

    def inputs(self, context: str, file: str | None, *, keep_git_dir: bool = False) -> Inputs:
        """The context that the command line names and its Dockerfile, which ``file`` may name.

        ``-`` is a Dockerfile or a tar on standard input. Raises InvalidInput, NotFound,
        InvalidArchive, RegistryError, StorageError.
        """
        if context == "-":
            if file == "-":
                raise InvalidInput("can't use standard input for both build context and Dockerfile")
            return self._unpacked_or_dockerfile(self._standard_blocks(), "standard input", file)
        match None if Path(context).is_dir() else parse_remote(context, context=True):
            case UrlSource(url=url):
                downloaded = self._downloaded(url)
                inputs = self._unpacked_or_dockerfile(self._blocks(downloaded), shown(url), file)
                return replace(inputs, origin=Origin(shown(url), {"sha256": downloaded.blob.digest.encoded}))
            case GitSource() as source:
                kept = replace(source, keep_git_dir=source.keep_git_dir or keep_git_dir)
                commit = self._repositories.commit(kept)
                inputs = self._inside(Context(self._git(kept, commit)), file, shown(source.remote))
                uri = shown(source.remote) + (f"#{source.ref}" if source.ref else "")
                return replace(inputs, origin=Origin(uri, {"sha1": commit}))
            case None:
                return self._local(context, file)

    def named(self, words: Iterable[str]) -> Named:
        """``--build-context NAME=VALUE`` words. Raises as ``inputs``."""
        meanings: dict[str, NamedContext] = {}
        files: dict[str, Context] = {}
        layouts: dict[Reference, Layout] = {}
        for word in words:
            written, equals, value = word.partition("=")
            if not (written and equals and value):
                raise InvalidInput(
                    f"invalid build context {word!r}: want NAME=DIRECTORY, NAME=URL or NAME=docker-image://IMAGE"
                )
            name = context_name(written)
            kind, _, rest = value.partition("://")
            if kind == "docker-image":
                meanings[name] = NamedImage(Reference.parse(rest).with_default_tag())
            elif kind == "oci-layout":
                stand_in = Reference.parse(f"oci-layout.invalid/number{len(layouts)}").with_default_tag()
                layouts[stand_in] = parse_layout(rest)
                meanings[name] = NamedImage(stand_in)
            else:
                files[name] = self._named_files(written, value)
                meanings[name] = NamedFiles()
        return Named(meanings, files, layouts)

    # Kinds of contexts

    def _local(self, context: str, file: str | None) -> Inputs:
        directory = Path(context)
        if not directory.is_dir():
            raise InvalidInput(f'unable to prepare context: path "{context}" not found or not a directory')
        if given := self._given_dockerfile(file):
            return Inputs(directory, *given, None)
        path = find_dockerfile(directory, file)
        with path.open("rb") as opened:
            return Inputs(directory, _limited(opened, str(path)), path.name, path)

    def _unpacked_or_dockerfile(self, blocks: Iterator[bytes], where: str, file: str | None) -> Inputs:
        """A stream that is a tar with a Dockerfile in it, or a Dockerfile without any context."""
        first = next(blocks, b"")
        directory = self._session().scratch()
        if _is_tar(first):
            _unpack(chain([first], blocks), directory)
            return self._inside(Context(directory, keeps_owners=True), file, where)
        if file is not None:
            raise InvalidInput(f"ambiguous Dockerfile: {where} is one, and -f names another")
        text = bytearray(first)
        for block in blocks:
            text += block
            if len(text) > _MAX_DOCKERFILE:
                break
        if len(text) > _MAX_DOCKERFILE or b"\0" in text[:_BLOCK]:
            raise InvalidInput(f"{where} is neither a tar nor a Dockerfile")
        return Inputs(Context(directory), bytes(text), "Dockerfile", None)

    def _inside(self, context: Context, file: str | None, where: str) -> Inputs:
        """A context that was laid out for this build, with the Dockerfile in it."""
        if given := self._given_dockerfile(file):
            return Inputs(context, *given, None)
        names = DOCKERFILE_NAMES if file is None else (file,)
        for name in names:
            if (text := _read_inside(context, name, where)) is not None:
                return Inputs(context, text, os.path.basename(name), None)
        raise NotFound(f"failed to read dockerfile: {names[0]}: no such file in {where}")

    def _given_dockerfile(self, file: str | None) -> tuple[bytes, str] | None:
        """A Dockerfile from standard input or the network."""
        if file == "-":
            return _limited(self._standard_input, "standard input"), "Dockerfile"
        if file is None or not isinstance(remote := parse_remote(file), UrlSource):
            return None
        text = b"".join(self._blocks(self._downloaded(remote.url, _MAX_DOCKERFILE)))
        return text, remote.name

    def _named_files(self, name: str, value: str) -> Context:
        match parse_remote(value, context=True):
            case UrlSource(url=url):
                blocks = self._blocks(self._downloaded(url))
                first = next(blocks, b"")
                if not _is_tar(first):
                    raise InvalidInput(f"build context {name}: {shown(url)} is not a tar")
                directory = self._session().scratch()
                _unpack(chain([first], blocks), directory)
                return Context(directory, keeps_owners=True)
            case GitSource() as source:
                return Context(self._git(source, self._repositories.commit(source)))
            case None:
                if "://" in value:
                    raise InvalidInput(f"build context {name}: {value.partition('://')[0]}:// is not supported")
                return Context.load(Path(value))

    # Ways to get them

    def _git(self, source: GitSource, commit: str) -> Path:
        top = self._repositories.check_out(source, commit)
        with Context(top).open() as tree:
            try:
                path = top / tree.resolve(source.subdir)
            except SourceNotFound as error:
                raise NotFound(f"{shown(source.remote)} has no directory {source.subdir!r}") from error
        if not path.is_dir():
            raise NotFound(f"{shown(source.remote)}: {source.subdir!r} is not a directory")
        return path

    def _downloaded(self, url: str, limit: int | None = None) -> Downloaded:
        file = self._downloads.known(url, None) or self._downloads.fetch(url, None)
        if limit is not None and file.blob.size > limit:
            raise InvalidInput(f"{shown(url)} is larger than {limit} bytes: want a Dockerfile")
        return file

    def _blocks(self, file: Downloaded) -> Iterator[bytes]:
        with self._session().content.open(file.blob) as blob:
            yield from iter(lambda: blob.read(_BLOCK), b"")

    def _standard_blocks(self) -> Iterator[bytes]:
        return iter(lambda: self._standard_input.read(_BLOCK), b"")


def find_dockerfile(context: Path, given: str | None) -> Path:
    """The Dockerfile's path: ``given`` from the working directory, else by the usual names in the context.

    Raises NotFound, InvalidInput when it is not a file.
    """
    if given is not None:
        candidates = [Path(given)]
        if not candidates[0].is_absolute():
            candidates.append(context / given)
    else:
        candidates = [context / name for name in DOCKERFILE_NAMES]
    for path in candidates:
        if path.is_file():
            return path
        if path.exists():
            raise InvalidInput(f"{path} is not a regular file: name the Dockerfile with -f")
    raise NotFound(f"failed to read dockerfile: {candidates[0]}: no such file")


def parse_layout(text: str) -> Layout:
    """``PATH[:NAME|@DIGEST]``. Raises InvalidInput."""
    path, at, digest = text.partition("@")
    if at:
        return Layout(Path(path), digest)
    if not Path(text).is_dir():
        before, colon, name = text.rpartition(":")
        if colon and "/" not in name:
            return Layout(Path(before), name)
    if not text:
        raise InvalidInput("invalid build context oci-layout://: want the path of a layout")
    return Layout(Path(text), "")


def _read_inside(context: Context, name: str, where: str) -> bytes | None:
    """A file of a stranger's tree, no link of which leads out; None when there is none."""
    with context.open() as tree:
        try:
            path = tree.resolve(name)
        except SourceNotFound:
            return None
        return _read_regular(tree, path, f"{name} in {where}")


def _read_regular(tree: Tree, path: str, shown_as: str) -> bytes:
    with tree.descent() as descent:
        fd = descent.open(path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"{shown_as} is not a regular file: name the Dockerfile with -f")
    with os.fdopen(fd, "rb") as file:
        return _limited(file, shown_as)


def _limited(file: BinaryIO, shown_as: str) -> bytes:
    data = file.read(_MAX_DOCKERFILE + 1)
    if len(data) > _MAX_DOCKERFILE:
        raise InvalidInput(f"{shown_as} is larger than {_MAX_DOCKERFILE} bytes: want a Dockerfile")
    return data


def _is_tar(first: bytes) -> bool:
    """Whether a stream that starts so is a tar, maybe compressed."""
    from store.compression import inflated
    from store.tar_reader import Reader

    try:
        return bool(first) and Reader(inflated([first])).next() is not None
    except InvalidArchive:
        return False


def _unpack(blocks: Iterable[bytes], directory: Path) -> None:
    """Raises InvalidArchive, StorageError."""
    from store.compression import inflated
    from store.unpack import unpack

    blocks = iter(blocks)
    unpack(inflated(blocks), directory, whiteouts="keep")
    tail = 0
    while tail < _MAX_TAIL and (block := next(blocks, b"")):
        tail += len(block)
