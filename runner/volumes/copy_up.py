"""A directory of an image as the first content of a volume, with everything that belongs to the files.

Both trees are reached through directory descriptors and no link is followed, so that what is
in the image cannot lead the copy out of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from typing import Final

_CHUNK: Final = 8 << 20
_Copied = dict[tuple[int, int], str]
"""Files with several names by device and inode: where the first copy is, as a path from the top."""


def copy_directory(source: int, target: int) -> None:
    """Copy the content of one directory into another, empty one, and give it its owner, mode and attributes.

    Keeps owners, modes, times, extended attributes, links of both kinds, devices and fifos.
    Both are descriptors. Raises OSError.
    """
    _copy_content(source, target, target, "", {})


def _copy_content(source: int, target: int, top: int, at: str, copied: _Copied) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            _copy_entry(source, target, entry.name, top, f"{at}{entry.name}", copied)
    _copy_facts(source, target)


def _copy_entry(source: int, target: int, name: str, top: int, path: str, copied: _Copied) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    identity = (found.st_dev, found.st_ino)
    if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1:
        if identity in copied:
            os.link(copied[identity], name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
            return
        copied[identity] = path
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        _both(source, target, name, os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY, top, path, copied)
    elif stat.S_ISREG(found.st_mode):
        _both(source, target, name, os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, top, path, copied)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)
    elif not stat.S_ISSOCK(found.st_mode):  # a socket without its program is nothing
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _both(
    source: int, target: int, name: str, read_flags: int, write_flags: int, top: int, path: str, copied: _Copied
) -> None:
    """A file or a directory, through a descriptor of each side."""
    always = os.O_NOFOLLOW | os.O_CLOEXEC
    reader = os.open(name, read_flags | always, dir_fd=source)
    try:
        writer = os.open(name, write_flags | always, 0o600, dir_fd=target)
        try:
            if read_flags & os.O_DIRECTORY:
                _copy_content(reader, writer, top, f"{path}/", copied)
            else:
                while os.sendfile(writer, reader, None, _CHUNK):  # copy_file_range does not leave an overlay
                    pass
                _copy_facts(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_facts(source: int, target: int) -> None:
    """Owner before mode and attributes: a change of owner takes set-uid bits and file capabilities away."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            with suppress(PermissionError):  # a label that only the system may give
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


# --- into a volume, whole or not at all ---------------------------------------------------


def fill(volume: str, data: str, source: int) -> None:
    """Make the image's directory ``source`` (a descriptor) the content of an empty volume.

    The copy is made aside and declared whole by a rename; then its entries move into ``data``,
    where a container may be looking on. A kill in between is finished by the next ``settle``.
    The caller holds the volume's filling lock. Raises OSError.
    """
    aside = f"{volume}/filling"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        os.mkdir(aside, 0o700)
        made = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copy_directory(source, made)
        finally:
            os.close(made)
        os.rename(aside, f"{volume}/filled")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    settle(volume, data)


def settle(volume: str, data: str) -> None:
    """Finish the filling of a volume whose copy is whole; nothing to do for the others. Raises OSError."""
    try:
        ready = os.open(f"{volume}/filled", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    place = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        whole = os.fstat(ready)
        for name in os.listdir(ready):
            if not _exists(name, place):  # a container was faster: the file is its own
                os.rename(name, name, src_dir_fd=ready, dst_dir_fd=place)
        _copy_facts(ready, place)
        os.utime(place, ns=(whole.st_atime_ns, whole.st_mtime_ns))  # before the entries moved out
    finally:
        os.close(place)
        os.close(ready)
    shutil.rmtree(f"{volume}/filled", ignore_errors=True)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
