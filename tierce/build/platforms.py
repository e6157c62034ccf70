"""Which platforms' programs this machine runs: its own, and those that an emulator is registered for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.errors import InvalidInput
from image.platform import Platform, best_match

BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_QEMU: Final = {
    "amd64": "x86_64", "386": "i386", "arm64": "aarch64", "arm": "arm", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "mips64le": "mips64el", "loong64": "loongarch64",
}  # fmt: skip
"""Go's names of architectures to qemu's, as handlers are called."""
_NAMES: Final = ("qemu-{}", "qemu-{}-static", "{}")
"""What distributions call a handler: Debian, Fedora, and who registers one by hand."""


def parse_platforms(words: tuple[str, ...], here: Platform) -> tuple[Platform, ...]:
    """``--platform a,b`` in the order given, each once; this machine's without any. Raises InvalidPlatform."""
    texts = [text for word in words for text in word.split(",") if text]
    found = dict.fromkeys(here if text == "local" else Platform.parse(text, here) for text in texts)
    for platform in found:
        if platform.os != here.os:
            raise InvalidInput(f"cannot build for {platform}: only {here.os} images can be built")
    return tuple(found) or (here,)


def why_not(here: Platform, binfmt: Path = BINFMT) -> Callable[[Platform], str | None]:
    """What keeps a program of a platform from running on ``here``; None when nothing does."""

    def reason(platform: Platform) -> str | None:
        if platform.architecture == here.architecture or best_match(here, [platform]) is not None:
            return None  # whether this processor has what a variant wants, the program itself tells
        emulator = _QEMU.get(platform.architecture, platform.architecture)
        found = {_handler(binfmt / name.format(emulator)) for name in _NAMES}
        if "fixed" in found:
            return None
        what = f"cannot run programs of {platform} on this {here} machine"
        if "loose" in found:
            return f"{what}: the handler qemu-{emulator} lacks flag F: register qemu-user-static's"
        advice = "install and register qemu-user-static, or build in a stage FROM --platform=$BUILDPLATFORM"
        return f"{what}: no handler qemu-{emulator} in {binfmt}: {advice}"

    return reason


def _handler(path: Path) -> str:
    """``fixed`` when the kernel opened the emulator at registration, so that it works inside a container."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    if not text.startswith("enabled"):
        return ""
    flags = re.search(r"^flags: (\w*)$", text, re.MULTILINE)
    return "fixed" if flags and "F" in flags[1] else "loose"
