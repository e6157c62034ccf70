"""``--output``, ``--annotation``, ``--cache-from`` and ``--cache-to`` as values."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cache_words import CacheExport, InlineCache, LocalCache, RegistryCache, parse_cache_from, parse_cache_to
from builder.output_form import DEFAULT_FORM, Annotation, ImageForm
from builder.output_words import (
    ArchiveOutput,
    CacheOnly,
    ImageOutput,
    LocalOutput,
    Output,
    OutputFlags,
    TarOutput,
    parse_annotation,
    parse_outputs,
)
from image.errors import InvalidInput
from image.platform import Platform
from image.reference import Reference

ARM64 = Platform("linux", "arm64")
DOCKER = ImageForm(docker=True)


@pytest.mark.parametrize(
    ("flags", "outputs"),
    [
        (OutputFlags(), (ImageOutput(DEFAULT_FORM),)),
        (OutputFlags(load=True), (ImageOutput(DEFAULT_FORM),)),
        (OutputFlags(push=True), (ImageOutput(DEFAULT_FORM, push=True),)),
        (OutputFlags(outputs=("out",)), (LocalOutput("out"),)),
        (OutputFlags(outputs=("-",)), (TarOutput("-"),)),
        (OutputFlags(outputs=("out",), load=True), (LocalOutput("out"), ImageOutput(DEFAULT_FORM))),
        (OutputFlags(outputs=("out",), push=True), (LocalOutput("out"), ImageOutput(DEFAULT_FORM, push=True))),
        (OutputFlags(outputs=("type=cacheonly",)), (CacheOnly(),)),
        (OutputFlags(outputs=("type=registry,name=a",)), (ImageOutput(DEFAULT_FORM, ("a",), push=True),)),
        (OutputFlags(outputs=('type=image,"name=a,b"',)), (ImageOutput(DEFAULT_FORM, ("a", "b")),)),
        (OutputFlags(outputs=("type=local,dest=o,mode=delete",)), (LocalOutput("o", delete=True),)),
        (OutputFlags(outputs=("type=tar,dest=o.tar,platform-split=false",)), (TarOutput("o.tar", False),)),
        (OutputFlags(outputs=("type=docker",)), (ArchiveOutput("docker", "-", DOCKER),)),
        (OutputFlags(outputs=("type=oci,dest=o,tar=false",)), (ArchiveOutput("oci", "o", DEFAULT_FORM, directory=True),)),
        (OutputFlags(docker=True), (ImageOutput(DOCKER),)),
        (
            OutputFlags(outputs=("type=image,compression=zstd,compression-level=9,force-compression=true",)),
            (ImageOutput(ImageForm(compression="zstd", level=9, force=True)),),
        ),
        (
            OutputFlags(outputs=("type=image,annotation.k=v,annotation-index[linux/arm64].A=B",), platforms=2),
            (
                ImageOutput(
                    ImageForm(annotations=(Annotation("manifest", "k", "v"), Annotation("index", "A", "B", ARM64)))
                ),
            ),
        ),
    ],
    ids=lambda value: " ".join(value.outputs) or "flags" if isinstance(value, OutputFlags) else "",
)  # fmt: skip
def test_outputs(flags: OutputFlags, outputs: tuple[Output, ...]) -> None:
    assert parse_outputs(flags) == outputs


@pytest.mark.parametrize(
    ("word", "notes"),
    [
        ("a=b", [Annotation("manifest", "a", "b")]),
        ("a=b=c", [Annotation("manifest", "a", "b=c")]),
        ("org.example:key=v", [Annotation("manifest", "org.example:key", "v")]),
        ("index:a=b", [Annotation("index", "a", "b")]),
        ("index,manifest:a=", [Annotation("index", "a", ""), Annotation("manifest", "a", "")]),
        ("manifest[linux/arm64],index:a=b", [Annotation("manifest", "a", "b", ARM64), Annotation("index", "a", "b")]),
    ],
)
def test_annotations(word: str, notes: list[Annotation]) -> None:
    assert parse_annotation(word) == notes


@pytest.mark.parametrize(
    ("word", "export"),
    [
        ("type=inline", CacheExport(InlineCache())),
        ("type=local,dest=d,tag=t", CacheExport(LocalCache(Path("d"), "t"))),
        (
            "type=registry,ref=a/b,mode=max,compression=zstd,compression-level=3,mounts=true,ignore-error=true",
            CacheExport(
                RegistryCache(Reference.parse("a/b").with_default_tag()),
                every_step=True, mounts=True, compression="zstd", level=3, ignore_error=True,
            ),
        ),
        ("a/b:c", CacheExport(RegistryCache(Reference.parse("a/b:c")))),
        ("type=registry,ref=a,image-manifest=true,oci-mediatypes=true", CacheExport(RegistryCache(Reference.parse("a:latest")))),
    ],
)  # fmt: skip
def test_cache_to(word: str, export: CacheExport) -> None:
    assert parse_cache_to([word]) == (export,)


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("a", RegistryCache(Reference.parse("a:latest"))),
        ("type=registry,ref=a:b", RegistryCache(Reference.parse("a:b"))),
        ("type=local,src=/d", LocalCache(Path("/d"))),
        ("type=local,src=/d,digest=sha256:0", LocalCache(Path("/d"), digest="sha256:0")),
    ],
)
def test_cache_from(word: str, place: RegistryCache | LocalCache) -> None:
    assert parse_cache_from([word]) == (place,)


@given(st.text(max_size=60))
def test_whatever_is_written_is_an_output_or_a_clear_refusal(word: str) -> None:
    for parse in (lambda: parse_outputs(OutputFlags(outputs=(word,))), lambda: parse_cache_to([word])):
        with suppress(InvalidInput):
            parse()
