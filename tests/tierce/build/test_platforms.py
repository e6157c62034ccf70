"""Which platforms' programs run here, by what the kernel says of its handlers."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.errors import InvalidInput
from image.platform import Platform
from tierce.build.platforms import parse_platforms, why_not

AMD64 = Platform("linux", "amd64")
ENABLED = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\nmagic 7f454c46\n"


@pytest.mark.parametrize(
    ("platform", "handlers", "reason"),
    [
        ("linux/amd64", {}, None),
        ("linux/amd64/v3", {}, None),
        ("linux/arm64", {}, "no handler qemu-aarch64"),
        ("linux/arm64", {"qemu-aarch64": ENABLED.format(flags="OCF")}, None),
        ("linux/arm64", {"qemu-aarch64-static": ENABLED.format(flags="F")}, None),
        ("linux/arm64", {"qemu-aarch64": ENABLED.format(flags="OC")}, "lacks flag F"),
        ("linux/arm64", {"qemu-aarch64": "disabled\nflags: F\n"}, "no handler"),
        ("linux/arm/v7", {"qemu-aarch64": ENABLED.format(flags="F")}, "no handler qemu-arm"),
    ],
)
def test_what_keeps_a_program_from_running(
    tmp_path: Path, platform: str, handlers: dict[str, str], reason: str | None
) -> None:
    for name, text in handlers.items():
        (tmp_path / name).write_text(text)
    found = why_not(AMD64, tmp_path)(Platform.parse(platform))
    assert found is None if reason is None else reason in str(found)


def test_platforms_are_listed_once_in_order() -> None:
    found = parse_platforms(("linux/arm64,local", "linux/amd64,linux/arm/v6"), AMD64)
    assert [str(platform) for platform in found] == ["linux/arm64", "linux/amd64", "linux/arm/v6"]
    assert parse_platforms((), AMD64) == (AMD64,)


def test_other_systems_are_refused() -> None:
    with pytest.raises(InvalidInput, match="only linux"):
        parse_platforms(("windows/amd64",), AMD64)
