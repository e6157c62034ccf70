"""In which form the layers of a store say what their files are: one for all of them.

    <root>/form    the form, written when the first layer is made

Root, an ordinary user with ranges of ids, with one id, and a user without a namespace write the same
layer in different ways: other owners on disk, records beside them, other names of overlay's attributes.
A process of another form would read wrong owners, and files that an upper layer has removed. It is told
so before it uses a layer; images are blobs, so it may list, save and remove them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from image.errors import StorageError
from image.paths import Path
from store.content import replace_file, storage_errors
from store.owners import id_ranges, in_user_namespace, may_use_trusted


def current() -> str:
    """This process's form, in words that complete "made by"."""
    uid = os.geteuid()
    if may_use_trusted():
        return "root"
    if not in_user_namespace():
        return "root without CAP_SYS_ADMIN" if uid == 0 else f"user {uid} without a user namespace"
    (_, own, size), *ranges = id_ranges()
    if not ranges and size == 1:
        return f"user {own} with one id"
    return f"user {own} with ids from {ranges[0][1] if ranges else own} on"


class Form:
    """Of one store. ``is_empty`` tells whether it has no layers, which may then be of any form."""

    def __init__(self, root: Path, is_empty: Callable[[], bool]) -> None:
        self._path = root / "form"
        self._is_empty = is_empty
        self._fits = False

    def take(self) -> None:
        """Before a layer is made. Raises StorageError when there are layers of another form."""
        if not self._fits and self._recorded() != current():
            if not self._is_empty():
                self.require()
            with storage_errors(f"write {self._path}"):
                replace_file(self._path, current().encode())
        self._fits = True

    def require(self) -> None:
        """Before layers are used. Raises StorageError when they are of another form."""
        if self._fits or not (recorded := self._recorded()):
            return
        if recorded != current():
            raise StorageError(
                f"the layers in {self._path.parent} were made by {recorded} and would not be the same for {current()}: "
                f"use them as they were made, or another --root, or begin anew with tierce system prune --all"
            )
        self._fits = True

    def _recorded(self) -> str:
        """Nothing for a store without layers, or of a time when there was one form."""
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""
