"""Sessions, names, garbage: the promises of the store between processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import BlobNotFound, StorageError
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from store.metadata import CacheRecord
from store.store import Session, Store

PLATFORM = Platform("linux", "amd64")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(root) as store:
        yield store


def add_image(store: Store, session: Session, name: str, content: bytes = b"layer") -> Descriptor:
    layer = session.put(content, media_types.OCI_LAYER)
    config = ImageConfig(PLATFORM, diff_ids=(DiffID.of(content),), created=f"2024-01-01T00:00:0{len(content) % 10}Z")
    manifest = Manifest.build(session.put(config.encode(), media_types.OCI_CONFIG), [layer])
    target = session.put(manifest.raw, manifest.media_type)
    store.add_image(target, [Reference.parse(name).with_default_tag()])
    return target


def make_layer(session: Session, name: str, parent: str | None = None) -> str:
    """An unpacked layer that only the session holds; its directory."""
    workspace = session.workspace(parent)
    (workspace.diff / name).write_text(name)
    below = next((layer for layer in session.store.metadata.layers() if layer.directory == parent), None)
    session.commit_layer(
        workspace, below.chain_id if below else None, DiffID.of(name.encode()), size=len(name), entries=1
    )
    return workspace.directory


def test_the_root_is_an_oci_layout(store: Store, root: Path) -> None:
    with store.session() as session:
        target = add_image(store, session, "app")
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads((root / "index.json").read_text())["manifests"]
    assert entry["digest"] == str(target.digest)
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "app:latest"
    store.remove_name("docker.io/library/app:latest")
    assert json.loads((root / "index.json").read_text())["manifests"] == []


def test_an_index_that_a_killed_process_left_behind_is_mended(store: Store, root: Path) -> None:
    """index.json is written just before SQLite's commit, so a kill in between leaves it ahead."""
    with store.session() as session:
        add_image(store, session, "app")
    good = json.loads((root / "index.json").read_text())

    class Killed(BaseException):
        pass

    def killed() -> None:
        store._write_index()
        raise Killed

    with store.session() as session, pytest.raises(Killed), store.metadata.transaction(killed):
        store.metadata.remove_name("docker.io/library/app:latest")
    assert json.loads((root / "index.json").read_text())["manifests"] == []
    with Store.open(root):
        mended = json.loads((root / "index.json").read_text())
    assert mended["manifests"] == good["manifests"]


def test_a_name_moves(store: Store) -> None:
    with store.session() as session:
        first = add_image(store, session, "app", b"1")
        second = add_image(store, session, "app", b"22")
    names = store.metadata.names()
    assert [(record.name, record.target) for record in names] == [("docker.io/library/app:latest", second)]
    assert [(record.target, record.names) for record in store.metadata.images()] == [
        (second, ("docker.io/library/app:latest",)),
        (first, ()),
    ]


def test_an_image_with_a_missing_blob_is_refused_whole(store: Store) -> None:
    with store.session() as session:
        layer = Descriptor.of(b"absent", media_types.OCI_LAYER)
        config = ImageConfig(PLATFORM, diff_ids=(DiffID.of(b"absent"),))
        manifest = Manifest.build(session.put(config.encode(), media_types.OCI_CONFIG), [layer])
        target = session.put(manifest.raw, manifest.media_type)
        with pytest.raises(BlobNotFound, match=str(layer.digest)):
            store.add_image(target, [Reference.parse("app:1")])
    assert store.metadata.names() == []
    assert store.metadata.images() == []


def test_a_sparse_index_keeps_what_it_has(store: Store) -> None:
    with store.session() as session:
        child = add_image(store, session, "child")
        absent = Descriptor.of(b"absent", media_types.OCI_MANIFEST)
        index = Index.build([absent, child])
        store.add_image(session.put(index.raw, index.media_type), [Reference.parse("multi:1")])
    store.remove_image(child.digest)
    store.collect()
    assert store.content.has(child.digest)


def test_collect_removes_only_what_nothing_needs(store: Store) -> None:
    with store.session() as session:
        kept = add_image(store, session, "kept", b"kept")
        gone = add_image(store, session, "gone", b"gone!")
        stray = session.put(b"stray", "text/plain")
        held = store.collect()
        assert held.blobs == 0
        assert store.content.has(stray.digest)
    store.remove_image(gone.digest)
    reclaimed = store.collect()
    assert reclaimed.blobs == 4, "manifest, config and layer of one image, and the stray blob"
    assert not store.content.has(gone.digest)
    assert store.facts(kept).blobs
    assert store.collect().size == 0


def test_layers_live_as_long_as_something_needs_them(store: Store) -> None:
    with store.session() as session:
        base = make_layer(session, "base")
        top = make_layer(session, "top", base)
        loose = make_layer(session, "loose", base)
        chain = next(layer.chain_id for layer in store.metadata.layers() if layer.directory == top)
        blob = session.put(b"blob", media_types.OCI_LAYER)
        store.metadata.add_cached(CacheRecord("key", chain, DiffID.of(b"top"), blob, 3, "RUN"))
        assert store.collect().layers == 0
    assert store.collect().layers == 1
    assert store.layers.directories() == {base, top}
    assert not (store.layers.base / loose).exists()
    store.metadata.remove_cached(["key"])
    assert store.collect().layers == 2
    assert store.layers.directories() == set()
    assert os.listdir(store.layers.base / "l") == ["0"]


def test_a_workspace_that_was_not_committed_goes_with_its_session(store: Store) -> None:
    with store.session() as session:
        session.workspace(None)
    assert store.layers.directories() == set()
    assert store.metadata.lease_owners() == set()


def test_the_same_layer_made_twice_is_kept_once(store: Store) -> None:
    with store.session() as session:
        first = make_layer(session, "same")
        make_layer(session, "same")
    assert [layer.directory for layer in store.metadata.layers()] == [first]
    assert store.layers.directories() == {first}


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from store.store import Store
    with Store.open(Path(sys.argv[1])) as store, store.session() as session:
        workspace = session.workspace(None)
        (workspace.diff / "file").write_text("x")
        session.put(b"held", "text/plain")
        writer = session.writer()
        writer.write(b"unfinished")
        print("ready", flush=True)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdin.read()
"""


def start_holder(root: Path, mode: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), root, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_a_killed_process_leaves_nothing_for_long(store: Store, root: Path) -> None:
    process = start_holder(root, "kill")
    assert process.wait() == -signal.SIGKILL
    assert process.stdin is not None
    process.stdin.close()
    assert len(store.layers.directories()) == 1
    assert store.collect().blobs == 1
    assert store.layers.directories() == set()
    assert os.listdir(root / "ingest") == os.listdir(root / "leases") == os.listdir(root / "trash") == []


def test_a_living_process_is_left_alone(store: Store, root: Path) -> None:
    process = start_holder(root, "live")
    assert store.collect().blobs == 0
    assert len(store.layers.directories()) == 1
    assert len(os.listdir(root / "ingest")) == 1
    process.communicate()
    assert store.collect().blobs == 1


def churn(root: str, worker: int) -> int:
    """Add, remove and collect in one process, among others that do the same."""
    with Store.open(Path(root)) as store:
        for turn in range(8):
            with store.session() as session:
                add_image(store, session, f"app{worker}", f"{worker}-{turn}".encode())
                add_image(store, session, "shared", b"shared")
                store.collect()
        return len(store.facts(store.metadata.names()[0].target).blobs)


def test_processes_share_a_root(root: Path) -> None:
    """Every interleaving of add and collect keeps every named image whole."""
    with ProcessPoolExecutor(4) as pool:
        assert all(pool.map(churn, [str(root)] * 4, range(4)))
    with Store.open(root) as store:
        names = [record.name.rpartition("/")[2] for record in store.metadata.names()]
        assert names == ["app0:latest", "app1:latest", "app2:latest", "app3:latest", "shared:latest"]
        for record in store.metadata.names():
            for blob in store.facts(record.target).blobs:
                store.content.read(blob)


LEAVER = """
import os, sys
from pathlib import Path
from store.store import Store

with Store.open(Path(sys.argv[1])) as store:
    store.metadata.lease("somebody", "blob", "sha256:1")
    store.metadata.leave_open()
os._exit(0)
"""


def test_a_database_that_was_left_open_has_all_that_was_written(root: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", LEAVER, str(root)], check=True)
    assert (root / "metadata.db-wal").stat().st_size > 0
    with Store.open(root) as store:
        assert store.metadata.lease_holdings("somebody", "blob") == {"sha256:1"}
    assert not (root / "metadata.db-wal").exists()


def test_a_root_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="open the store"):
        Store.open(tmp_path / "file")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "metadata.db").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(StorageError, match="is the root a Tierce store"):
        Store.open(tmp_path / "root")


def test_cached_results_round_trip(store: Store) -> None:
    record = CacheRecord("k", None, None, None, 7, "RUN true", created_s=12.5)
    store.metadata.add_cached(record)
    found = store.metadata.cached("k")
    assert found is not None
    assert (found.label, found.size, found.created_s, found.uses) == ("RUN true", 7, 12.5, 0)
    store.metadata.touch_cached(["k"])
    assert [item.uses for item in store.metadata.cache()] == [1]
    assert store.metadata.cached("other") is None


def test_digests_passes_over_strangers(store: Store, root: Path) -> None:
    (root / "blobs" / "sha256" / "README").write_text("")
    assert list(store.content.digests()) == []
    assert Digest.of(b"") not in set(store.content.digests())
