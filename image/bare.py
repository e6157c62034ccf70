"""Parts of ``contextlib``, ``json``, ``signal`` and ``sqlite3`` for those who cannot wait for these modules.

With what they import themselves (``re``, ``enum``, ``functools``, ``datetime``) they take ten
milliseconds, as long as the interpreter's own start; what they do is done by modules that are built
in. To a type checker all is the standard library's, and where a built-in is missing it is.
"""

from __future__ import annotations

__all__ = ["dumps", "loads", "signals", "sqlite", "suppress"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signals
    import sqlite3 as sqlite
    from collections.abc import Callable
    from contextlib import suppress
    from typing import Any, NoReturn
else:
    import _signal as signals

    def __getattr__(name):
        if name == "sqlite":
            import _sqlite3

            return _sqlite3
        raise AttributeError(name)

    class suppress:  # noqa: N801 - the standard library's name
        """See ``contextlib.suppress``; without groups of exceptions."""

        def __init__(self, *exceptions):
            self._exceptions = exceptions

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._exceptions)


_SPACE = " \t\n\r"


class _Reading:
    """What the scanner of ``_json`` is told."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None

    def __init__(self, pairs: Callable[[list[tuple[str, Any]]], Any] | None) -> None:
        self.object_pairs_hook = pairs


def loads(raw: bytes | str, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """``json.loads`` with ``pairs`` as its ``object_pairs_hook``. Raises ValueError, RecursionError."""
    try:
        from _json import make_scanner

        text = (raw if isinstance(raw, str) else raw.decode("utf-8")).lstrip(_SPACE)
        value, end = make_scanner(_Reading(pairs))(text, 0)  # type: ignore[arg-type]  # has what is asked of it
        if not text[end:].strip(_SPACE):
            return value
    except (ImportError, StopIteration, TypeError, ValueError):
        pass
    import json  # says what is wrong, and where

    return json.loads(raw, object_pairs_hook=pairs)


def _cannot(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} cannot be JSON")


def dumps(value: object, *, compact: bool = False) -> str:
    """``json.dumps``; ``compact`` is without blanks."""
    comma, colon = (",", ":") if compact else (", ", ": ")
    try:
        from _json import encode_basestring_ascii, make_encoder

        encode = make_encoder(None, _cannot, encode_basestring_ascii, None, colon, comma, False, False, True)
        return "".join(encode(value, 0))
    except (ImportError, TypeError):
        import json

        return json.dumps(value, separators=(comma, colon))
