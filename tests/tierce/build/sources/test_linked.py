"""COPY and ADD ``--link``: layers that fit on any base."""

from __future__ import annotations

import pytest

from builder.progress import StepCached, StepDone
from store.store import Store
from tests.tierce.build.sources.conftest import Bench, archive
from tierce.prune import picks_cached, prune

pytestmark = pytest.mark.root


def test_a_linked_layer_is_the_same_on_any_base(bench: Bench) -> None:
    bench.write(f="f", base="1")
    text = "FROM scratch\nCOPY base /dir/\nCOPY --link f /dir/sub/\nWORKDIR /w"
    first = bench.build(text)
    bench.write(base="2")
    second = bench.build(text)
    assert "COPY --link f /dir/sub/" in bench.names(StepCached)
    assert bench.names(StepDone) == ["COPY base /dir/", "WORKDIR /w"]
    assert [first.config.diff_ids[n] == second.config.diff_ids[n] for n in range(2)] == [False, True]
    assert bench.listing(second) == {
        "dir/": "755 0:0", "dir/base": "644 0:0 2", "dir/sub/": "755 0:0", "dir/sub/f": "644 0:0 f", "w/": "755 0:0",
    }  # fmt: skip
    bench.write(base="1")
    assert bench.build(text).config.diff_ids[:2] == first.config.diff_ids[:2]
    assert bench.names(StepDone) == []
    with Store.open(bench.root) as store:
        store.collect()
        for built in (first, second):
            assert len(store.layers.stack(store.facts(built.manifest).layers[-1].chain_id)) == 3


def test_a_linked_layer_of_a_stage_is_reused_too(bench: Bench) -> None:
    bench.write(f="f", base="1")
    text = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY base /\nCOPY --link --from=a /f /g"
    bench.build(text)
    bench.write(base="2")
    bench.build(text)
    assert bench.names(StepDone) == ["COPY base /"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY --link f /dir/", {"dir/f": "644 0:0 f", "dir/kept": "644 0:0 kept"}),
        ("COPY --link d /dir/", {"dir/one": "644 0:0 1", "dir/kept": "644 0:0 kept"}),
        ("COPY --link f /link/", {"link/": "755 0:0", "link/f": "644 0:0 f"}),
        ("COPY f /link/", {"link": "-> dir", "dir/f": "644 0:0 f"}),
        ("COPY --link --chmod=700 f /link/", {"link": "-> dir", "dir/f": "700 0:0 f"}),
        ("COPY --link --chown=5 f /dir/", {"dir/": "755 5:5", "dir/f": "644 5:5 f"}),
        ("COPY --link --parents d/./sub/two /dir/", {"dir/sub/two": "644 0:0 2", "dir/kept": "644 0:0 kept"}),
        ("WORKDIR /dir\nCOPY --link f .", {"dir/f": "644 0:0 f", "dir/kept": "644 0:0 kept"}),
        ("ADD --link a.tgz /dir/", {"dir/in": "640 7:0 x", "dir/kept": "644 0:0 kept"}),
        ("COPY --link <<A /dir/\na\nA", {"dir/A": "644 0:0 a\n", "dir/kept": "644 0:0 kept"}),
    ],
)
def test_a_linked_layer_knows_nothing_of_its_base(bench: Bench, line: str, expected: dict[str, str]) -> None:
    bench.write(f="f", kept="kept", d__one="1", d__sub__two="2")
    (bench.context / "links").mkdir()
    (bench.context / "links" / "link").symlink_to("dir")
    (bench.context / "a.tgz").write_bytes(archive({"in": "x"}))
    listing = bench.listing(bench.build(f"FROM scratch\nCOPY kept /dir/\nCOPY links /\n{line}"))
    assert {name: listing.get(name) for name in expected} == expected


def test_a_name_of_an_owner_has_no_meaning_in_a_linked_layer(bench: Bench) -> None:
    bench.write(f="f", passwd="who:x:5:6::/:/bin/sh\n")
    bench.build("FROM scratch\nCOPY passwd /etc/\nCOPY --chown=who f /")
    assert "unable to find user who" in str(
        bench.refused("FROM scratch\nCOPY passwd /etc/\nCOPY --link --chown=who f /")
    )


def test_one_linked_copy_serves_two_stages_of_a_build(bench: Bench) -> None:
    bench.write(f="f", one="1", two="2")
    built = bench.build(
        "FROM scratch AS a\nCOPY one /\nCOPY --link f /l/\nFROM scratch AS b\nCOPY two /\nCOPY --link f /l/\n"
        "FROM scratch\nCOPY --from=a / /a/\nCOPY --from=b / /b/"
    )
    assert bench.names(StepDone).count("COPY --link f /l/") == 1
    assert bench.names(StepCached) == ["COPY --link f /l/"]
    assert {"a/one", "a/l/f", "b/two", "b/l/f"} <= bench.listing(built).keys()


def test_a_pruned_linked_layer_is_made_again(bench: Bench) -> None:
    bench.write(f="f", base="1")
    text = "FROM scratch\nCOPY base /\nCOPY --link f /l/"
    bench.build(text)
    with Store.open(bench.root) as store:
        prune(store, images=lambda _: True, cached=picks_cached(older_than_s=None))
    bench.build(text)
    assert bench.names(StepDone) == ["COPY base /", "COPY --link f /l/"]
