"""``system df|prune|info|check``, ``builder du|prune``, on a real store."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from image.digest import ChainID
from store.metadata import CacheRecord
from store.store import Store
from tests.tierce.conftest import Stock

Invoke = Callable[..., tuple[int, str, str]]


def _remember_step(stock: Stock, key: str, *, chain: ChainID | None = None, size: int = 10) -> None:
    with Store.open(stock.root) as store:
        store.metadata.add_cached(CacheRecord(key, chain, None, None, size, f"RUN {key}"))


def test_df_counts_what_is_shared_once(stock: Stock, invoke: Invoke) -> None:
    stock.add("one", content="same")
    stock.add("two", content="same", created="2026-05-05T00:00:00Z")
    on_disk = sum(path.stat().st_size for path in (stock.root / "blobs" / "sha256").iterdir())
    _, out, _ = invoke("system", "df", "-v", "--format", "{{.ImagesSize}} {{.BuildCacheSize}} {{.UnusedSize}}")
    assert out == f"{on_disk} 0 0\n"
    _, out, _ = invoke("system", "df", "--format", "{{.Type}} {{.TotalCount}}")
    assert out.splitlines() == ["Images 2", "Containers 0", "Local Volumes 0", "Build Cache 0", "Unused 0"]


def test_df_tells_what_nothing_needs(stock: Stock, invoke: Invoke) -> None:
    stock.add("one")
    invoke("rmi", "--no-prune", "one")
    _, out, _ = invoke("system", "df", "--format", "{{.Type}}={{.Size}}")
    assert out.splitlines()[0] == "Images=0B"
    assert not out.splitlines()[4].endswith("=0B")
    invoke("system", "prune", "-f")
    _, out, _ = invoke("system", "df", "--format", "{{.Type}}={{.Size}}")
    assert out.splitlines()[4] == "Unused=0B"


def test_df_verbose(stock: Stock, invoke: Invoke) -> None:
    stock.add("one")
    _remember_step(stock, "sha256:" + "a" * 64)
    _, out, _ = invoke("system", "df", "-v")
    assert "REPOSITORY   TAG       IMAGE ID" in out
    assert "aaaaaaaaaaaa" in out


def test_prune_takes_nameless_images_and_leaves_the_rest(stock: Stock, invoke: Invoke) -> None:
    stock.add("named", content="1")
    nameless = stock.add(content="2")
    with Store.open(stock.root) as store:
        config = next(record.config for record in store.metadata.images() if record.target.digest == nameless.digest)
    code, out, _ = invoke("system", "prune", "-f")
    assert code == 0
    assert f"Deleted Images:\ndeleted: {config}\n\nTotal reclaimed space: " in out
    _, out, _ = invoke("images", "--format", "{{.Repository}}")
    assert out == "named\n"


def test_prune_all(stock: Stock, invoke: Invoke) -> None:
    stock.add("named")
    _remember_step(stock, "step")
    invoke("system", "prune", "-a", "-f")
    assert invoke("images", "-q")[1] == ""
    assert invoke("builder", "du", "--format", "{{.ID}}")[1] == ""
    assert invoke("system", "check", "-q") == (0, "", "")


@pytest.mark.parametrize(("until", "left"), [("2026-01-15T00:00:00Z", 1), ("2025-01-01", 2), ("1m", 0)])
def test_prune_until(until: str, left: int, stock: Stock, invoke: Invoke) -> None:
    stock.add(content="1", created="2026-01-01T00:00:00Z")
    stock.add(content="2", created="2026-02-01T00:00:00Z")
    invoke("image", "prune", "-f", "--filter", f"until={until}")
    assert len(invoke("images", "-q")[1].splitlines()) == left


def test_prune_by_label(stock: Stock, invoke: Invoke) -> None:
    stock.add("a", content="1", labels={"keep": "no"})
    stock.add("b", content="2")
    invoke("image", "prune", "-a", "-f", "--filter", "label=keep=no")
    assert invoke("images", "--format", "{{.Repository}}")[1] == "b\n"


def test_builder_prune_spares_what_images_use(stock: Stock, invoke: Invoke) -> None:
    target = stock.add("app")
    with Store.open(stock.root) as store:
        chain = store.facts(target).layers[-1].chain_id
    _remember_step(stock, "used", chain=chain)
    _remember_step(stock, "spare", chain=ChainID("sha256:" + "1" * 64))
    _, out, _ = invoke("builder", "prune", "-f")
    assert "spare" in out
    assert invoke("builder", "du", "--format", "{{.ID}} {{.Description}}")[1] == "used RUN used\n"
    invoke("builder", "prune", "-a", "-f")
    assert invoke("builder", "du", "--format", "{{.ID}}")[1] == ""


def test_builder_prune_keeps_what_was_used_last(stock: Stock, invoke: Invoke) -> None:
    for key in ("old", "middle", "new"):
        _remember_step(stock, key, size=1 << 20)
    invoke("builder", "prune", "-a", "-f", "--keep-storage", "2m")
    assert set(invoke("builder", "du", "--format", "{{.ID}}")[1].split()) == {"middle", "new"}


def test_info(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    _, out, _ = invoke("system", "info", "--format", "json")
    document = json.loads(out)
    assert document["DockerRootDir"] == str(stock.root)
    assert (document["Images"], document["Driver"]) == (1, "overlay2")
    assert document["KernelFeatures"]["overlayfs"] in {"yes", "no (modprobe overlay)"}
    _, out, _ = invoke("info")
    assert f"Root: {stock.root}\n" in out
    assert "Privileges:\n  Mode: " in out


def test_check_fails_on_damage_and_says_how_much(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    code, out, _ = invoke("system", "check")
    assert (code, out) == (0, f"{stock.root} is whole: 1 images, 3 blobs, 0 layers\n")
    (stock.root / "ingest" / "dead-1").write_text("half a blob")
    code, out, err = invoke("system", "check")
    assert code == 1
    assert out.startswith("leftover: ")
    assert err == f"tierce: 1 problem in {stock.root}\n"
    assert invoke("system", "check", "--repair")[0] == 0


def test_version(invoke: Invoke) -> None:
    _, out, _ = invoke("version", "--format", "{{.Client.Version}}")
    assert out.count(".") == 2
