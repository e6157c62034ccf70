"""Pinning: the images a Dockerfile names, and its text with their digests or without.

Finding and rewriting are pure: text in, text out, and not a byte changes outside the words
that are replaced. Whoever calls looks the digests up in between.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from builder.dockerfile.checks import PREDEFINED_ARGS
from builder.dockerfile.instructions import Copy, From, Instruction, Run
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import Document, parse, source_lines
from builder.dockerfile.stages import SCRATCH, Stage, StageReference, Stages, references, split_stages
from builder.dockerfile.words import expand
from image.digest import Digest
from image.errors import DockerfileError, InvalidReference, NotFound, ReferenceNotFound, StorageError
from image.reference import Reference
from image.span import Span
from image.value import dataclass, replace

_AT_DIGEST: Final = re.compile(r"@[a-z0-9]+:[0-9a-f]{32,}\Z")

Resolve = Callable[[Reference], Digest]
"""What a name stands for in its registry: an index's digest if it is one. Raises NotFound, RegistryError."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A place that names an image. ``note`` says why its text can't be replaced; "" if it can.

    ``start`` and ``end`` are offsets in the decoded text.
    """

    written: str
    reference: Reference | None
    span: Span
    start: int = 0
    end: int = 0
    note: str = ""

    @property
    def pinned(self) -> bool:
        return self.reference is not None and self.reference.digest is not None

    def asks_for(self, *, update: bool) -> Reference | None:
        """The name whose digest is to be written here; None where nothing is to be done."""
        if self.note or self.reference is None or (self.pinned and not update):
            return None
        return replace(self.reference, digest=None).with_default_tag()


@dataclass(frozen=True, slots=True)
class Change:
    """A mention and the text to put in its place."""

    mention: Mention
    text: str


def find_images(source: bytes, file: str, *, ignored: Collection[str] = ()) -> tuple[Mention, ...]:
    """Every image in FROM, ``COPY --from`` and ``RUN --mount=from``, by line, but for the ``ignored`` names.

    Raises DockerfileError for a file that can't be parsed.
    """
    try:
        document = parse(source, file)
        stages = split_stages(instructions(document))
        mentions = tuple(_mentions(document, stages, decode(source)))
    except DockerfileError as error:
        error.source = source_lines(source)
        raise
    return tuple(mention for mention in mentions if mention.written not in ignored)


def pin(mentions: Iterable[Mention], resolve: Resolve, *, update: bool = False) -> tuple[Change, ...]:
    """Digests for the mentions that have none; with ``update``, for all.

    Raises DockerfileError at an image that ``resolve`` does not find; RegistryError.
    """
    changes: list[Change] = []
    for mention in mentions:
        named = mention.asks_for(update=update)
        if named is None:
            continue
        try:
            digest = resolve(named)
        except NotFound as error:
            hint = "leave a name of --build-context alone with --ignore"
            raise DockerfileError(str(error), span=mention.span, hint=hint) from error
        text = f"{_AT_DIGEST.sub('', mention.written)}@{digest}"
        if text != mention.written:
            changes.append(Change(mention, text))
    return tuple(changes)


def unpin(mentions: Iterable[Mention]) -> tuple[Change, ...]:
    """The mentions without their digests."""
    return tuple(
        Change(mention, _AT_DIGEST.sub("", mention.written))
        for mention in mentions
        if mention.pinned and not mention.note
    )


def rewrite(source: bytes, changes: Iterable[Change]) -> bytes:
    """The file with the changes made, and every other byte as it was."""
    text = decode(source)
    for change in sorted(changes, key=lambda change: change.mention.start, reverse=True):
        text = text[: change.mention.start] + change.text + text[change.mention.end :]
    return text.encode("utf-8", "surrogateescape")


def decode(source: bytes) -> str:
    """The text that a mention's offsets count in."""
    return source.decode("utf-8", "surrogateescape")


def replace_file(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of a file, all at once, with the file's mode. Raises StorageError."""
    target = path.resolve()
    beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        try:
            mode = target.stat().st_mode & 0o7777
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(target)
        finally:
            with suppress(FileNotFoundError):
                beside.unlink()
    except OSError as error:
        raise StorageError(f"write {path}: {(error.strerror or str(error)).lower()}") from error


# Finding


def _mentions(document: Document, stages: Stages, text: str) -> Iterator[Mention]:
    words = _Words(text, document.escape)
    defaults = _defaults(stages)
    for stage in stages.stages:
        if stages.base(stage, stage.origin.image) is None and stage.origin.image != SCRATCH:
            yield _of_from(words, stage.origin, defaults)
        for command in stage.commands:
            yield from _of_command(words, stages, stage, command)


def _of_from(words: _Words, origin: From, defaults: Mapping[str, str]) -> Mention:
    image = origin.image
    if "$" in image:
        with suppress(DockerfileError):
            image = expand(image, defaults)
        return Mention(origin.image, _parsed(image), origin.span, note="an ARG is part of its name")
    return _located(image, origin.span, words.argument(origin.span, image))


def _of_command(words: _Words, stages: Stages, stage: Stage, command: Instruction) -> Iterator[Mention]:
    for name in references(command):
        if stages.source(stage, StageReference(name, command.span)) is not None:
            continue
        match command:
            case Copy():
                place = words.flag(command.span, rf"--from=({re.escape(name)})\Z")
            case Run():
                place = words.flag(command.span, rf"--mount=(?:.*,)?(?i:from)=({re.escape(name)})(?:,|\Z)")
            case _:
                continue
        yield _located(name, command.span, place)


def _located(written: str, span: Span, place: tuple[int, int] | None) -> Mention:
    if place is None:
        return Mention(written, _parsed(written), span, note="it is quoted, escaped or split over lines")
    reference = _parsed(written)
    note = "" if reference else "it is not a valid image name"
    return Mention(written, reference, span, *place, note)


def _parsed(name: str) -> Reference | None:
    try:
        return Reference.parse(name)
    except InvalidReference:
        return None


def _defaults(stages: Stages) -> dict[str, str]:
    """The global ARGs as nobody overrides them; those that can't be evaluated are left out."""
    env = dict.fromkeys(PREDEFINED_ARGS, "")
    for arg in stages.global_args:
        for name, default in arg.args:
            if default is not None:
                with suppress(DockerfileError):
                    env[name] = expand(default, env)
    return env


class _Words:
    """The words of a file's physical lines, with their offsets."""

    def __init__(self, text: str, escape: str) -> None:
        self._escape = escape
        self._lines = text.split("\n")
        self._offsets = [0]
        for line in self._lines:
            self._offsets.append(self._offsets[-1] + len(line) + 1)

    def argument(self, span: Span, word: str) -> tuple[int, int] | None:
        """Where the first argument of an instruction stands, if it is ``word``, plainly written."""
        for text, start in self._after_keyword(span):
            if not text.startswith("--"):
                return (start, start + len(word)) if text == word else None
        return None

    def flag(self, span: Span, pattern: str) -> tuple[int, int] | None:
        """Where the group of ``pattern`` stands in a flag of an instruction."""
        for text, start in self._after_keyword(span):
            if not text.startswith("--"):
                return None
            found = re.match(pattern, text)
            if found:
                return start + found.start(1), start + found.end(1)
        return None

    def _after_keyword(self, span: Span) -> Iterator[tuple[str, int]]:
        words = self._of(span)
        next(words, None)
        yield from words

    def _of(self, span: Span) -> Iterator[tuple[str, int]]:
        """Words without the escape character that continues a line; comment lines have none."""
        for number in range(span.start - 1, min(span.end, len(self._lines))):
            line = self._lines[number]
            if line.lstrip().startswith("#"):
                continue
            for found in re.finditer(r"\S+", line):
                word = found.group()
                if not line[found.end() :].strip():
                    word = word.removesuffix(self._escape)
                if word:
                    yield word, self._offsets[number] + found.start()


def not_found(reference: Reference) -> ReferenceNotFound:
    """What a ``Resolve`` raises for a name that its registry does not know."""
    return ReferenceNotFound(f"image {reference.familiar} not found in its registry")
