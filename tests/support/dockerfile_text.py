"""Dockerfiles as text that a golden file can hold."""

from __future__ import annotations

import dataclasses

from builder.dockerfile.excerpt import excerpt
from builder.dockerfile.instructions import Instruction
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse, source_lines
from builder.dockerfile.stages import split_stages
from image.errors import DockerfileError

_SOURCE = {"span", "original", "keyword", "comments"}


def understood(source: bytes) -> str:
    """What a good Dockerfile means: directives, then each instruction with what it says."""
    document = parse(source, "Dockerfile")
    lines = [f"{d.span.start} # {d.name} = {d.value}" for d in document.directives]
    lines += [f"{span.start}-{span.end} blank continuation" for span in document.empty_continuations]
    for instruction in instructions(document):
        lines += _described(instruction)
    return "\n".join(lines) + "\n"


def rejected(source: bytes) -> str:
    """The error that a bad Dockerfile ends with, and its excerpt."""
    try:
        split_stages(instructions(parse(source, "Dockerfile"))).check_cycles()
    except DockerfileError as error:
        shown = excerpt(source_lines(source), error.span) + "\n" if error.span else ""
        return f"{error}\nat {error.span}\n{shown}"
    return "no error\n"


def _described(instruction: Instruction) -> list[str]:
    span = instruction.span
    lines = [f"{span.start}-{span.end} {type(instruction).__name__} {instruction.original!r}"]
    for field in dataclasses.fields(instruction):
        value = getattr(instruction, field.name)
        if field.name not in _SOURCE and value != field.default:
            lines.append(f"    {field.name}: {value!r}")
    return lines
