"""Build contexts: a directory of the user's, seen through its ignore file.

Spec: dockerfile.md 1.5 and 2, ".dockerignore".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from builder.dockerfile.ignore import MAX_SIZE, NOTHING, IgnoreRules, ignore_file_names
from builder.tree import Tree
from image.errors import InvalidInput
from image.paths import Path
from image.value import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """A directory to copy from, and what of it to hide.

    Its files count as root's, except where it ``keeps_owners``: out of a tar, which says whose they are.
    """

    root: Path
    rules: IgnoreRules = NOTHING
    keeps_owners: bool = False

    @classmethod
    def load(cls, root: Path, dockerfile: Path | None = None, ignore_file: Path | None = None) -> Context:
        """The context at ``root`` with its ignore file.

        That is ``ignore_file`` if given; else the one beside ``dockerfile`` that bears its
        name, even if it is empty; else the one at the root. Raises InvalidInput.
        """
        if not root.is_dir():
            raise InvalidInput(f'build context "{root}" is not a directory')
        if ignore_file is not None:
            source = _read(ignore_file)
            if source is None:
                raise InvalidInput(f"ignore file {ignore_file} does not exist")
            return cls(root, IgnoreRules.parse(source, str(ignore_file)))
        for candidate in ignore_candidates(root, dockerfile):
            source = _read(candidate)
            if source is not None:
                return cls(root, IgnoreRules.parse(source, candidate.name))
        return cls(root)

    @contextmanager
    def open(self) -> Iterator[Tree]:
        """The context's files. Raises InvalidInput if the directory is gone."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidInput(f'build context "{self.root}" can\'t be read: {error.strerror}') from error
        try:
            yield Tree(fd, self.rules, own_by_root=not self.keeps_owners)
        finally:
            os.close(fd)


def ignore_candidates(root: Path, dockerfile: Path | None) -> Iterator[Path]:
    """Where an ignore file may be; the first that exists counts."""
    *beside, for_containers, for_docker = ignore_file_names(dockerfile.name if dockerfile else "")
    if dockerfile is not None:
        yield from (dockerfile.with_name(name) for name in beside)
    yield root / for_containers
    yield root / for_docker


def _read(path: Path) -> bytes | None:
    """The bytes of an ignore file; None if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInput(f"ignore file {path} can't be read: {error.strerror}") from error
