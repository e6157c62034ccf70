"""Of ``inspect``, what click needs of it: until somebody wants more, a module with one function.

Click imports the whole, which takes a tenth of a short command's time, and calls ``cleandoc`` for the
help of each option.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Inspect(ModuleType):
    """``inspect``, whose real module is imported with the first thing that is asked of it."""

    def cleandoc(self, doc: str) -> str:
        """Of one line, which is what an option's help is."""
        if "\n" in doc or "\t" in doc:
            cleaned: str = self.__getattr__("cleandoc")(doc)
            return cleaned
        return doc.lstrip()

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        if sys.modules.get("inspect") is self:
            del sys.modules["inspect"]
        return getattr(import_module("inspect"), name)


def install() -> None:
    """Have the next ``import inspect`` find it."""
    if "inspect" not in sys.modules:
        sys.modules["inspect"] = _Inspect("inspect")
