"""A second opinion: are two images the same?

Lists in words how two images differ that ``tests.support.image_tree`` read: in their files
(type, mode, owner, size, link target, device number, extended attributes, content, shared
inodes) and in the fields of the configuration.

    assert differences(docker_archive(theirs), oci_layout(ours, "site:latest")) == []

What is not compared, and why:
- modification times, unless asked for: two builds happen at two times;
- ``created``, ``history``, ids and other fields that say who built and when: only the
  fields in ``_CONFIG_FIELDS`` and ``_DOCUMENT_FIELDS`` are compared, and an empty value
  equals an absent one;
- the paths in ``MADE_BY_RUNTIME``: empty files and directories that an engine makes so that
  it can mount its own over them, and leaves behind in the layer of a RUN.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.image_tree import Image, Inode

MADE_BY_RUNTIME = frozenset({
    "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "run/.containerenv",
})  # fmt: skip

_CONFIG_FIELDS = (
    "ArgsEscaped", "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild",
    "Shell", "StopSignal", "User", "Volumes", "WorkingDir",
)  # fmt: skip
_DOCUMENT_FIELDS = ("architecture", "os", "os.version", "variant", "author")


def differences(
    left: Image, right: Image, *, mtimes: bool = False, ignore: Iterable[str] = MADE_BY_RUNTIME
) -> list[str]:
    """Every difference as a line ``what: left, right``; the empty list when the images agree."""
    skipped = frozenset(ignore)
    found = _config_differences(left.config, right.config)
    for path in sorted((left.tree.keys() | right.tree.keys()) - skipped):
        ours, theirs = left.tree.get(path), right.tree.get(path)
        if ours is None or theirs is None:
            found.append(f"/{path}: {_describe(ours)}, {_describe(theirs)}")
        else:
            found += _inode_differences(path, ours, theirs, mtimes=mtimes)
    return found + _link_differences(left, right, skipped)


def _config_differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    def compared(document: dict[str, Any]) -> dict[str, Any]:
        inner = document.get("config") or {}
        chosen = {f"config.{name}": inner.get(name) for name in _CONFIG_FIELDS}
        return chosen | {name: document.get(name) for name in _DOCUMENT_FIELDS}

    ours, theirs = compared(left), compared(right)
    return [
        f"{name}: {ours[name]!r}, {theirs[name]!r}" for name in ours if (ours[name] or None) != (theirs[name] or None)
    ]


def _inode_differences(path: str, left: Inode, right: Inode, *, mtimes: bool) -> list[str]:
    def show(inode: Inode, name: str) -> str:
        value = getattr(inode, name)
        return f"{value:04o}" if name == "mode" else repr(value)

    names = [
        "kind",
        "mode",
        "uid",
        "gid",
        "size",
        "target",
        "device",
        "xattrs",
        "sha256",
        *(["mtime"] if mtimes else []),
    ]
    return [
        f"/{path} {name}: {show(left, name)}, {show(right, name)}"
        for name in names
        if getattr(left, name) != getattr(right, name)
    ]


def _link_differences(left: Image, right: Image, skipped: frozenset[str]) -> list[str]:
    ours, theirs = _link_groups(left, skipped), _link_groups(right, skipped)
    if ours == theirs:
        return []
    return [f"hard links: {sorted(ours - theirs)}, {sorted(theirs - ours)}"]


def _link_groups(image: Image, skipped: frozenset[str]) -> set[tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for path, inode in image.tree.items():
        if path not in skipped:
            names.setdefault(id(inode), []).append(path)
    return {tuple(sorted(paths)) for paths in names.values() if len(paths) > 1}


def _describe(inode: Inode | None) -> str:
    if inode is None:
        return "absent"
    return f"{inode.kind} {inode.mode:04o} {inode.uid}:{inode.gid}"
