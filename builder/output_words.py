"""``--output`` and its relatives: what the user wrote, as values. Pure.

Spec: dockerfile.md 5, "Outputs".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, assert_never

from builder.output_form import Annotation, AnnotationPlace, ImageForm
from image.errors import InvalidInput
from image.platform import Platform
from image.value import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

_COMPRESSIONS: Final[Mapping[str, Compression]] = {"uncompressed": "uncompressed", "gzip": "gzip", "zstd": "zstd"}
_PLACES: Final[Mapping[str, AnnotationPlace]] = {
    "manifest": "manifest",
    "manifest-descriptor": "manifest-descriptor",
    "index": "index",
    "index-descriptor": "index-descriptor",
}
_ANNOTATION: Final = re.compile(r"annotation(?:-(?P<place>[a-z-]+))?(?:\[(?P<platform>[^\]]*)\])?\.(?P<key>.+)")
_FORM_WORDS: Final = frozenset(
    {"oci-mediatypes", "compression", "compression-level", "force-compression", "rewrite-timestamp"}
)
_ACCEPTED: Final = frozenset({"unpack", "store", "buildinfo", "attest"})
"""Words of other builders that change nothing here."""


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """An image in the store, under the build's tags and ``names``; with ``push``, in their registries too."""

    form: ImageForm
    names: tuple[str, ...] = ()
    push: bool = False
    by_digest: bool = False
    """Push without a tag."""


@dataclass(frozen=True, slots=True)
class ArchiveOutput:
    """An OCI layout or a docker archive at ``dest``; ``directory`` for a layout that is no tar."""

    kind: Literal["oci", "docker"]
    dest: str
    form: ImageForm
    names: tuple[str, ...] = ()
    directory: bool = False


@dataclass(frozen=True, slots=True)
class LocalOutput:
    """The root filesystem in a directory. ``delete`` empties it first. ``split``: a folder a platform."""

    dest: str
    delete: bool = False
    split: bool | None = None


@dataclass(frozen=True, slots=True)
class TarOutput:
    """The root filesystem as a tar."""

    dest: str
    split: bool | None = None


@dataclass(frozen=True, slots=True)
class CacheOnly:
    """Nothing but the build cache."""


Output = ImageOutput | ArchiveOutput | LocalOutput | TarOutput | CacheOnly


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFlags:
    """The flags that say what comes out."""

    outputs: tuple[str, ...] = ()
    push: bool = False
    load: bool = False
    docker: bool = False
    """``--format docker``."""
    annotations: tuple[str, ...] = ()
    squash: bool = False
    squash_base: bool = False
    omit_history: bool = False
    platforms: int = 1
    index: bool = False
    """Whether an image of one platform has an index, too."""


def parse_outputs(flags: OutputFlags) -> tuple[Output, ...]:
    """What to make, in the order given; the image in the store when nothing is said.

    Raises InvalidInput for what is unknown, contradicts itself, or would write two things to
    standard output.
    """
    form = ImageForm(
        docker=flags.docker,
        annotations=tuple(note for word in flags.annotations for note in parse_annotation(word)),
        squash=flags.squash,
        squash_base=flags.squash_base,
        omit_history=flags.omit_history,
    )
    outputs = [parse_output(word, form) for word in flags.outputs]
    if flags.push and not any(isinstance(output, ImageOutput) for output in outputs):
        outputs.append(ImageOutput(form))
    if flags.push:
        outputs = [replace(one, push=True) if isinstance(one, ImageOutput) else one for one in outputs]
    if not outputs or (flags.load and not any(isinstance(output, ImageOutput) for output in outputs)):
        outputs.append(ImageOutput(form))
    for output in outputs:
        _check(output, flags.platforms, index=flags.index or flags.platforms > 1)
    streams = [output for output in outputs if getattr(output, "dest", "") == "-"]
    if len(streams) > 1:
        raise InvalidInput("two outputs want standard output: give one of them dest=FILE")
    return tuple(outputs)


def writes_to_stdout(outputs: Iterable[Output]) -> bool:
    return any(getattr(output, "dest", "") == "-" for output in outputs)


def parse_output(word: str, form: ImageForm) -> Output:
    """One ``--output``. A word without ``=`` is a directory, or ``-`` a tar on standard output."""
    if "=" not in word:
        return TarOutput("-") if word == "-" else LocalOutput(_need(word, word, "a directory"))
    fields = parse_fields(word, "output")
    kind = fields.pop("type", "")
    match kind:
        case "image" | "registry":
            return _image(word, fields, form, push=kind == "registry")
        case "oci" | "docker":
            return _archive(word, kind, fields, form)
        case "local":
            return _local(word, fields)
        case "tar":
            split = _maybe_flag(word, fields, "platform-split")
            dest = fields.pop("dest", "-")
            _refuse_rest(word, fields)
            return TarOutput(dest, split)
        case "cacheonly":
            _refuse_rest(word, fields)
            return CacheOnly()
        case _:
            known = "image, registry, oci, docker, local, tar, cacheonly"
            raise InvalidInput(f"invalid output {word!r}: unknown type {kind!r}: want one of {known}")


def _image(word: str, fields: dict[str, str], form: ImageForm, *, push: bool) -> ImageOutput:
    form = _form(word, fields, form)
    names = _names(fields)
    push = _flag(word, fields, "push") or push
    by_digest = _flag(word, fields, "push-by-digest")
    for name in ("registry.insecure", "name-canonical", "dangling-name-prefix"):
        if fields.pop(name, "false") not in {"false", ""}:
            raise InvalidInput(f"invalid output {word!r}: {name} is not supported: use --tls-verify and --tag")
    _refuse_rest(word, fields)
    return ImageOutput(form, names, push or by_digest, by_digest)


def _archive(word: str, kind: Literal["oci", "docker"], fields: dict[str, str], form: ImageForm) -> ArchiveOutput:
    if kind == "docker":
        fields.setdefault("oci-mediatypes", "false")
    form = _form(word, fields, form)
    names = _names(fields)
    directory = not _flag(word, fields, "tar", default=True)
    dest = fields.pop("dest", "" if directory else "-")
    _refuse_rest(word, fields)
    return ArchiveOutput(kind, _need(word, dest, "dest=DIRECTORY"), form, names, directory)


def _local(word: str, fields: dict[str, str]) -> LocalOutput:
    dest = _need(word, fields.pop("dest", ""), "dest=DIRECTORY")
    mode = fields.pop("mode", "copy")
    if mode not in {"copy", "delete"}:
        raise InvalidInput(f"invalid output {word!r}: mode {mode!r}: want copy or delete")
    split = _maybe_flag(word, fields, "platform-split")
    _refuse_rest(word, fields)
    return LocalOutput(dest, mode == "delete", split)


def _form(word: str, fields: dict[str, str], form: ImageForm) -> ImageForm:
    """Take what says how an image is written out of ``fields``."""
    named = [name for name in fields if name.startswith("annotation")]
    notes = [*form.annotations, *(_annotation_field(word, name, fields.pop(name)) for name in named)]
    compression = fields.pop("compression", form.compression)
    if compression not in _COMPRESSIONS:
        known = ", ".join(_COMPRESSIONS)
        raise InvalidInput(f"invalid output {word!r}: compression {compression!r}: want {known}")
    level = fields.pop("compression-level", "")
    if level and not level.lstrip("-").isdigit():
        raise InvalidInput(f"invalid output {word!r}: compression-level {level!r} is not a number")
    _flag(word, fields, "rewrite-timestamp")  # file times are always clamped to the epoch
    return replace(
        form,
        docker=not _flag(word, fields, "oci-mediatypes", default=not form.docker),
        compression=_COMPRESSIONS[compression],
        level=int(level) if level else None,
        force=_flag(word, fields, "force-compression"),
        annotations=tuple(notes),
    )


def _names(fields: dict[str, str]) -> tuple[str, ...]:
    return tuple(name for name in fields.pop("name", "").split(",") if name)


def _check(output: Output, platforms: int, *, index: bool) -> None:
    match output:
        case ImageOutput(form=form) | ArchiveOutput(form=form):
            form.check()
            if not index and (note := next((n for n in form.annotations if n.place.startswith("index")), None)):
                raise InvalidInput(f"annotation {note.key}: a build for one platform has no index: use manifest:")
            if isinstance(output, ArchiveOutput) and output.kind == "docker" and not output.directory and platforms > 1:
                raise InvalidInput("a docker archive holds one platform: use type=oci for several")
        case LocalOutput(dest=dest, delete=True) if dest.rstrip("/") in {"", ".", ".."}:
            raise InvalidInput(f"output {dest}: mode=delete would empty a directory that is in use: name another")
        case TarOutput() if platforms > 1:
            raise InvalidInput("a tar of several platforms is not supported: use type=local, or type=oci")
        case LocalOutput() | TarOutput() | CacheOnly():
            pass
        case _:
            assert_never(output)


def parse_fields(word: str, what: str) -> dict[str, str]:
    """``a=b,"c=d,e"``: comma-separated, with quotes as in CSV. Raises InvalidInput."""
    import csv  # only who names an output or a cache pays for it

    try:
        rows = list(csv.reader([word], strict=True))
    except csv.Error as error:
        raise InvalidInput(f"invalid {what} {word!r}: {error}") from error
    fields: dict[str, str] = {}
    for part in rows[0] if rows else []:
        name, equals, value = part.partition("=")
        name = name.strip().lower() if "annotation" not in name else name.strip()
        if not equals or not name:
            raise InvalidInput(f"invalid {what} {word!r}: {part!r}: want NAME=VALUE")
        if name in fields:
            raise InvalidInput(f"invalid {what} {word!r}: {name} is given twice")
        fields[name] = value
    return fields


def parse_annotation(word: str) -> list[Annotation]:
    """``[TYPE[PLATFORM][,TYPE...]:]KEY=VALUE``. Raises InvalidInput."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InvalidInput(f"invalid annotation {word!r}: want [TYPE:]KEY=VALUE")
    kinds, colon, bare = key.partition(":")
    if not colon or re.sub(r"\[[^\]]*\]", "", kinds).split(",")[0] not in _PLACES:
        return [Annotation("manifest", key, value)]
    return [_annotation(word, kind, bare, value) for kind in re.split(r",(?![^\[]*\])", kinds)]


def _annotation(word: str, kind: str, key: str, value: str) -> Annotation:
    place, _, rest = kind.partition("[")
    if place not in _PLACES or not key:
        raise InvalidInput(f"invalid annotation {word!r}: unknown type {place!r}: want {', '.join(_PLACES)}")
    platform = Platform.parse(rest.rstrip("]")) if rest else None
    return Annotation(_PLACES[place], key, value, platform)


def _annotation_field(word: str, name: str, value: str) -> Annotation:
    match = _ANNOTATION.fullmatch(name)
    place = (match["place"] or "manifest") if match else ""
    if match is None or place not in _PLACES:
        raise InvalidInput(f"invalid output {word!r}: {name}: want annotation[-TYPE][[PLATFORM]].KEY=VALUE")
    platform = Platform.parse(match["platform"]) if match["platform"] else None
    return Annotation(_PLACES[place], match["key"], value, platform)


def _flag(word: str, fields: dict[str, str], name: str, *, default: bool = False) -> bool:
    text = fields.pop(name, "").lower()
    if text not in {"", "true", "false", "1", "0"}:
        raise InvalidInput(f"invalid output {word!r}: {name}={text}: want true or false")
    return text in {"true", "1"} if text else default


def _maybe_flag(word: str, fields: dict[str, str], name: str) -> bool | None:
    return _flag(word, fields, name) if name in fields else None


def _need(word: str, value: str, wanted: str) -> str:
    if not value:
        raise InvalidInput(f"invalid output {word!r}: want {wanted}")
    return value


def _refuse_rest(word: str, fields: Mapping[str, str]) -> None:
    unknown = sorted(fields.keys() - _ACCEPTED)
    if unknown:
        raise InvalidInput(f"invalid output {word!r}: unknown attribute {unknown[0]!r}")
