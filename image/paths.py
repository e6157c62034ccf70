"""``pathlib.Path`` for those who can't wait.

With what it imports itself (``re``, ``fnmatch``, ``urllib.parse``, ``ipaddress``) ``pathlib`` takes
eight milliseconds. This one knows what commands do that are started thousands of times; for
everything else it asks a real ``Path``, and ``pathlib`` is imported then. To a type checker all is
the standard library's.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path as Path  # noqa: PLC0414 - this is the export
else:

    class Path:
        """See ``pathlib.Path``. Equal to one of the same text; the two have different hashes."""

        __slots__ = ("_text",)

        def __init__(self, first=".", *others):
            text = os.path.join(first, *others)
            if text not in ("/", ".") and (
                text[-1:] in "/." or "//" in text or "./" in text
            ):  # perhaps not in its shortest form
                import pathlib

                text = str(pathlib.Path(text))
            self._text = text

        def __fspath__(self):
            return self._text

        __str__ = __fspath__

        def __bytes__(self):
            return os.fsencode(self._text)

        def __repr__(self):
            return f"Path({self._text!r})"

        def __eq__(self, other):
            return self._text == os.fspath(other) if _is_path(other) else NotImplemented

        def __lt__(self, other):
            if not _is_path(other):
                return NotImplemented
            if self.parent == Path(other).parent:
                return self.name < Path(other).name
            import pathlib

            return pathlib.Path(self) < pathlib.Path(other)

        def __hash__(self):
            return hash(self._text)

        def __truediv__(self, other):
            return Path(self._text, other)

        def __rtruediv__(self, other):
            return Path(other, self._text)

        def __reduce__(self):
            return Path, (self._text,)

        def __getattr__(self, name):
            import pathlib

            return getattr(pathlib.Path(self._text), name)

        @property
        def name(self):
            return "" if self._text == "." else os.path.basename(self._text)

        @property
        def parent(self):
            return Path(os.path.dirname(self._text) or (self._text if self._text == "/" else "."))

        def with_name(self, name):
            return self.parent / name

        def absolute(self):
            return self if self._text.startswith("/") else Path(os.getcwd(), self._text)

        def exists(self):
            return os.path.exists(self._text)

        def is_dir(self):
            return os.path.isdir(self._text)

        def is_file(self):
            return os.path.isfile(self._text)

        def stat(self, *, follow_symlinks=True):
            return os.stat(self._text, follow_symlinks=follow_symlinks)

        def iterdir(self):
            return (Path(self._text, name) for name in os.listdir(self._text))

        def mkdir(self, mode=0o777, parents=False, exist_ok=False):
            try:
                os.mkdir(self._text, mode)
            except FileNotFoundError:
                if not parents or self.parent == self:
                    raise
                self.parent.mkdir(parents=True, exist_ok=True)
                self.mkdir(mode, exist_ok=exist_ok)
            except OSError:
                if not exist_ok or not self.is_dir():
                    raise

        def rename(self, target):
            os.rename(self._text, target)
            return Path(target)

        def unlink(self, missing_ok=False):
            try:
                os.unlink(self._text)
            except FileNotFoundError:
                if not missing_ok:
                    raise

        def rmdir(self):
            os.rmdir(self._text)

        def open(self, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
            return open(self._text, mode, buffering, encoding, errors, newline)

        def read_bytes(self):
            with open(self._text, "rb") as file:
                return file.read()

        def read_text(self, encoding=None, errors=None):
            with open(self._text, encoding=encoding, errors=errors) as file:
                return file.read()

        def write_bytes(self, data):
            with open(self._text, "wb") as file:
                return file.write(data)

        def write_text(self, data, encoding=None, errors=None, newline=None):
            with open(self._text, "w", encoding=encoding, errors=errors, newline=newline) as file:
                return file.write(data)

    def _is_path(other):
        return hasattr(other, "__fspath__")
