"""Content identities. Three types for three meanings, so that a checker catches a swap.

``Digest``  of a stored blob (usually compressed),
``DiffID``  of a layer's uncompressed tar,
``ChainID`` of a stack of layers (image-spec, "Layer ChainID").
"""

from __future__ import annotations

from functools import cache

from image.errors import InvalidDigest
from image.value import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from hashlib import _Hash
    from typing import Self

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")
_SMALL = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class _Sum:
    """``algorithm:encoded``; validated, so that it is safe in a path or a URL."""

    value: str

    def __post_init__(self) -> None:
        algorithm, _, encoded = self.value.partition(":")
        if _LENGTHS.get(algorithm) != len(encoded) or not _HEX.issuperset(encoded):
            raise InvalidDigest(f"invalid digest {self.value[:150]!r}: want sha256:<64 hex> or sha512:<128 hex>")

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """The digest of ``data``."""
        return cls(f"{algorithm}:{_hexdigest(algorithm, data)}")

    @classmethod
    def from_hash(cls, hasher: _Hash) -> Self:
        """The digest of what ``hasher`` was fed."""
        return cls(f"{hasher.name}:{hasher.hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.value.partition(":")[0]

    @property
    def encoded(self) -> str:
        return self.value.partition(":")[2]

    @property
    def short(self) -> str:
        """The first 12 hex digits, as docker prints ids."""
        return self.encoded[:12]

    def hasher(self, size: int = _SMALL + 1) -> _Hash:
        """A fresh hash object of this digest's algorithm, for ``size`` bytes if that is known."""
        return _hasher(self.algorithm, size)

    def __str__(self) -> str:
        return self.value


def _hexdigest(algorithm: str, data: bytes) -> str:
    hasher = _hasher(algorithm, len(data))
    hasher.update(data)
    return hasher.hexdigest()


def _hasher(algorithm: str, size: int) -> _Hash:
    """By the interpreter's own code where the data is small: ``hashlib`` loads a library of megabytes."""
    if algorithm == "sha256" and size <= _SMALL:
        return _small_sha256()()
    from hashlib import new

    return new(algorithm)


@cache
def _small_sha256() -> Callable[[], _Hash]:
    for name in ("_sha2", "_sha256"):  # from Python 3.12 on, and before
        try:
            found: Callable[[], _Hash] = __import__(name).sha256
        except ImportError:
            continue
        return found
    from hashlib import sha256

    return sha256


class Digest(_Sum):
    """Identity of a stored blob."""

    __slots__ = ()


class DiffID(_Sum):
    """Identity of a layer's uncompressed tar stream."""

    __slots__ = ()


class ChainID(_Sum):
    """Identity of a stack of layers, bottom to top."""

    __slots__ = ()

    def then(self, diff_id: DiffID) -> ChainID:
        """The chain with one more layer on top."""
        return ChainID.of(f"{self} {diff_id}".encode())


def chain_ids(diff_ids: Iterable[DiffID]) -> tuple[ChainID, ...]:
    """The chain id after each layer, bottom to top."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(chain[-1].then(diff_id) if chain else ChainID(str(diff_id)))
    return tuple(chain)
