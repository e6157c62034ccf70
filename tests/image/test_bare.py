"""It is the standard library's, where both answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.bare import dumps, loads, signals, suppress

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS, st.sampled_from([None, 2]), st.booleans())
def test_it_reads_what_json_writes(document: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert loads(f" \n{text}\t".encode("utf-8", "surrogatepass")) == document


@given(DOCUMENTS)
def test_it_writes_what_json_writes(document: object) -> None:
    assert dumps(document) == json.dumps(document)


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"{", b"[1,]", b"{} x", b'"\x01"', b"nul", b"\xff", b"1 2", b"{'a': 1}", b"{1: 2}"]
)
def test_what_is_no_json_is_refused_in_the_same_words(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as expected:
        json.loads(raw)
    with pytest.raises(type(expected.value)) as caught:
        loads(raw)
    assert str(caught.value) == str(expected.value)


def test_depth_is_bounded() -> None:
    with pytest.raises(RecursionError):
        loads(b"[" * 100_000)


def test_pairs_see_every_key() -> None:
    assert loads(b'{"a": {"b": 1, "b": 2}}', pairs=list) == [("a", [("b", 1), ("b", 2)])]


def test_what_cannot_be_written_is_an_error() -> None:
    with pytest.raises(TypeError):
        dumps({"a": object()})


def test_only_what_is_named_is_suppressed() -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        raise FileNotFoundError
    with pytest.raises(PermissionError), suppress(FileNotFoundError):
        raise PermissionError


def test_signals_are_numbers() -> None:
    assert (signals.SIGKILL, signals.SIG_DFL, signals.SIG_IGN) == (9, 0, 1)
