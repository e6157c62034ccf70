"""``builder du`` and ``builder prune`` after real builds: sizes agree with du, what is in use stays."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.metadata import CacheRecord
from tests.support.cli import Tierce
from tierce.build.usage import CacheItem, Caps, Wish, choose

DOCKERFILE = """\
FROM busybox
RUN for i in $(seq 1 200); do echo $i > /f$i; done; dd if=/dev/urandom of=/big bs=1024 count=3000 2>/dev/null
RUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/data bs=1024 count=2000 2>/dev/null
RUN dd if=/dev/urandom of=/other bs=1024 count=1000 2>/dev/null
"""


def on_disk(root: Path) -> int:
    """Bytes of all that the cache can consist of."""
    places = [str(root / name) for name in ("overlay2", "blobs", "cache-mounts") if (root / name).exists()]
    lines = subprocess.run(["du", "-s", "--block-size=1", *places], check=True, capture_output=True, text=True).stdout
    return sum(int(line.split()[0]) for line in lines.splitlines())


@pytest.fixture
def tierce(tierce_with_busybox: Tierce) -> Tierce:
    return tierce_with_busybox


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


def build(tierce: Tierce, context: Path, *words: str) -> None:
    tierce("build", "--network=none", "--quiet", *words, context)


def sizes(tierce: Tierce, *words: str) -> list[float]:
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    found = tierce("builder", "du", "--format", "{{.Size}}", *words).stdout.split()
    return [float(text.rstrip("kMGB")) * units[text.lstrip("0123456789.e-+")] for text in found]


@pytest.mark.root
def test_sizes_agree_with_the_disk_within_a_percent(tierce: Tierce, context: Path) -> None:
    before = on_disk(tierce.root)
    build(tierce, context, "-o", "type=cacheonly")
    grown = on_disk(tierce.root) - before
    assert sum(sizes(tierce)) == pytest.approx(grown, rel=0.01)
    said = tierce("builder", "prune", "-a", "-f").stdout
    assert on_disk(tierce.root) == pytest.approx(before, rel=0.01)
    assert f"{grown / 1e6:.2g}" in said.splitlines()[-1]
    assert sizes(tierce) == []


@pytest.mark.root
def test_what_an_image_needs_stays_unless_all_is_asked(tierce: Tierce, context: Path) -> None:
    build(tierce, context, "-t", "app")
    tierce("builder", "prune", "-f")
    kinds = tierce("builder", "du", "--format", "{{.Type}} {{.Shared}}").stdout.splitlines()
    assert kinds == ["regular true"] * 3
    tierce("builder", "prune", "-a", "-f")
    assert sizes(tierce) == []
    assert tierce("run", "--rm", "--network=none", "app", "ls", "/other").stdout == "/other\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["type=exec.cachemount"], 3),
        (["type=regular"], 1),
        (["type=source.local"], 4),
        (["until=24h"], 4),
        (["until=0s"], 0),
        (["description=other"], 3),
        (["id=nothing"], 4),
        (["inuse"], 4),
        (["shared"], 4),
        (["private"], 0),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_filters(tierce: Tierce, context: Path, filters: list[str], left: int) -> None:
    build(tierce, context, "-o", "type=cacheonly")
    words = [word for text in filters for word in ("--filter", text)]
    listed = len(sizes(tierce, *words))
    tierce("builder", "prune", "-a", "-f", *words)
    assert len(sizes(tierce)) == left
    if filters != ["inuse"]:
        assert listed == 4 - left


@pytest.mark.root
def test_a_cap_takes_what_was_used_longest_ago(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    build(tierce, context, "-o", "type=cacheonly")
    other = tmp_path / "other"
    other.mkdir()
    (other / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/new bs=1024 count=1000 2>/dev/null\n")
    time.sleep(0.05)
    build(tierce, other, "-o", "type=cacheonly")
    tierce("builder", "prune", "-a", "-f", "--max-used-space", "4m")
    assert sum(sizes(tierce)) <= 4 << 20
    left = tierce("builder", "du", "--format", "{{.Description}}").stdout
    assert "/new" in left
    before = sizes(tierce)
    tierce("builder", "prune", "-a", "-f", "--max-used-space", "1k", "--reserved-space", "1g")
    tierce("builder", "prune", "-a", "-f", "--min-free-space", "1k")
    assert sizes(tierce) == before


@pytest.mark.root
def test_what_a_running_build_uses_stays(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    build(tierce, context, "-o", "type=cacheonly")
    (context / "Dockerfile").write_text(DOCKERFILE + "RUN echo started; sleep 600\n")
    running = tierce.start("build", "--network=none", "--progress=plain", context)
    try:
        assert running.stderr is not None
        while "started" not in (line := running.stderr.readline()):
            assert line
        assert tierce("builder", "du", "--format", "{{.InUse}}", "--filter", "inuse").stdout
        tierce("builder", "prune", "-a", "-f")
        assert sum(size > 0 for size in sizes(tierce, "--filter", "type=regular")) >= 3
    finally:
        running.terminate()
        running.communicate()


@pytest.mark.root
def test_the_words_of_du(tierce: Tierce, context: Path) -> None:
    build(tierce, context, "-o", "type=cacheonly")
    table = tierce("builder", "du").stdout.splitlines()
    assert table[0].split()[:4] == ["CACHE", "ID", "TYPE", "SIZE"]
    assert table[-1].startswith("Total: ")
    blocks = tierce("builder", "du", "--verbose", "--filter", "type=exec.cachemount").stdout
    assert "Description:   cache mount /c\n" in blocks
    assert "Type:          exec.cachemount\n" in blocks


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--filter", "type=nothing"], "unknown type"),
        (["--filter", "color=red"], "is not known"),
        (["--max-used-space", "many"], "invalid size"),
        (["--filter", "inuse=perhaps"], "want true or false"),
    ],
)
def test_what_is_refused(tierce: Tierce, words: list[str], problem: str) -> None:
    failed = tierce.attempt("builder", "prune", "-f", *words)
    assert failed.code != 0
    assert problem in failed.stderr


# The choice alone


def item(name: str, size: int, used_s: float, *, in_use: bool = False, depth: int = 1) -> CacheItem:
    record = CacheRecord(name, None, None, None, size, name)
    return CacheItem(name, "regular", size, False, in_use, 0, used_s, used_s, 0, name, record, depth)


ITEMS = st.lists(
    st.builds(
        item, st.text("abc", min_size=1), st.integers(0, 1000), st.floats(0, 100), in_use=st.booleans(),
        depth=st.integers(1, 5),
    )
)  # fmt: skip


@given(ITEMS, st.integers(1, 5000), st.integers(0, 5000))
def test_caps_hold_and_nothing_in_use_goes(items: list[CacheItem], most: int, reserved: int) -> None:
    gone = choose(items, Wish(), Caps(reserved, most), free=0)
    assert not any(one.in_use for one in gone)
    left = sum(one.size for one in items) - sum(one.size for one in gone)
    keep = max(most, reserved)
    assert left <= keep or len(gone) == sum(not one.in_use for one in items)
    if gone:
        assert left + gone[-1].size > keep  # not one more than needed


@pytest.mark.parametrize(
    ("caps", "keep"),
    [
        (Caps(max_used=300), 300),
        (Caps(reserved=400, max_used=300), 400),
        (Caps(min_free=150), 950),
        (Caps(min_free=50), 1000),
        (Caps(min_free=600, max_used=800), 500),
        (Caps(min_free=2000, reserved=100), 100),
    ],
)
def test_caps_as_buildkit_counts_them(caps: Caps, keep: int) -> None:
    assert caps.keep(total=1000, free=100) == keep


def test_a_layer_goes_after_what_stands_on_it() -> None:
    items = [item("base", 10, 5, depth=1), item("top", 10, 5, depth=2)]
    assert [one.id for one in choose(items, Wish(), Caps(max_used=10), free=0)] == ["top"]
