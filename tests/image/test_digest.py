from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.digest import ChainID, DiffID, Digest, chain_ids
from image.errors import InvalidDigest

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_text_round_trip(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert Digest(str(digest)) == digest
    assert digest.encoded == hashlib.new(algorithm, data).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "", "sha256", "sha256:", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), EMPTY + "\n", "md5:" + "0" * 32,
        "sha512:" + "0" * 64, "sha256:../../etc/passwd", "sha256:" + "g" * 64, " " + EMPTY,
    ],
)  # fmt: skip
def test_malformed_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest(text)


def test_the_kinds_are_never_equal() -> None:
    assert Digest(EMPTY) != DiffID(EMPTY)  # type: ignore[comparison-overlap]
    assert DiffID(EMPTY) != ChainID(EMPTY)  # type: ignore[comparison-overlap]


def test_chain_ids_follow_the_image_spec() -> None:
    """image-spec "Layer ChainID": the first is the diff_id, then the hash of 'chain diff_id'."""
    first, second = DiffID.of(b"1"), DiffID.of(b"2")
    expected = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([first, second]) == (ChainID(str(first)), ChainID(expected))
    assert chain_ids([]) == ()
