from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.digest import Digest
from image.errors import InvalidReference
from image.reference import Reference

D = str(Digest.of(b""))


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:t", "localhost:5000/a:t", "localhost:5000/a:t"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("ghcr.io/o/r@" + D, "ghcr.io/o/r@" + D, "ghcr.io/o/r@" + D),
        ("r:t@" + D, f"docker.io/library/r:t@{D}", f"r:t@{D}"),
        ("a__b/c---d", "docker.io/a__b/c---d", "a__b/c---d"),
    ],
)
def test_docker_normalisation(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert Reference.parse(canonical) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":tag", "Ubuntu", "a/B", "a//b", "/a", "a/", "a:", "a:t:u", "a@sha256:abc", "a b", "a:.t", "a:" + "t" * 129,
        "f" * 64, "a___b", "-a", "host.:5000/a", "localhost:/a", "a" * 300, "../a", "a\n",
    ],
)  # fmt: skip
def test_malformed_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,2})[a-z0-9]{1,5}){0,2}", fullmatch=True)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
domains = st.sampled_from(
    ["docker.io", "localhost", "localhost:5000", "quay.io", "123.dkr.ecr.eu-west-1.amazonaws.com"]
)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.none() | st.binary(max_size=4).map(Digest.of)


@given(domains, paths, tags, digests)
def test_text_round_trip(domain: str, path: str, tag: str | None, digest: Digest | None) -> None:
    if domain == "docker.io" and "/" not in path:
        path = "library/" + path
    reference = Reference(domain, path, tag, digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


def test_default_tag_only_where_nothing_is_said() -> None:
    assert str(Reference.parse("a").with_default_tag()).endswith("a:latest")
    assert Reference.parse("a@" + D).with_default_tag().tag is None
    assert Reference.parse("a:1").with_default_tag().tag == "1"


def test_uppercase_is_explained() -> None:
    with pytest.raises(InvalidReference, match="lowercase"):
        Reference.parse("localhost:5000/MyApp")
