"""Any source meets any sink; what fails leaves nothing; what is there is not sent again."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import BlobNotFound, DigestMismatch, InvalidManifest, ReferenceNotFound, RegistryError, TierceError
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from store.store import Store
from tests.support.fake_registry import FakeRegistry, Handler, TokenServer, redirect, refuse, with_bytes
from tests.support.tiny_image import ARM64, TinyImage, add_to_store, tiny_image, tiny_index
from tests.support.transfers import OPTIONS, anonymous_registries
from transfer.copy import Copied, CopyOptions, copy
from transfer.progress import BlobDone, Event, ManifestDone
from transfer.registries import Registries
from transfer.transports.address import Places, open_sink, open_source
from transfer.transports.local import StoreSink

FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
IMAGE = tiny_image({"a/b.txt": b"hello" * 1000}, {"c": b"x"})
BIG = tiny_image({"big": bytes(range(256)) * 20_000}, compress=False)

Copier = Callable[..., Copied]


@pytest.fixture
def places(store: Store, registries: Registries) -> Places:
    return Places(lambda: store, registries)


@pytest.fixture
def run(places: Places) -> Copier:
    def run(
        source: str, sink: str, options: CopyOptions = OPTIONS, progress: Callable[[Event], None] = lambda _event: None
    ) -> Copied:
        with ExitStack() as stack:
            opened = stack.enter_context(open_source(source, places))
            place = stack.enter_context(open_sink(sink, places))
            return copy(opened, place, options, progress)

    return run


def serve(fake: FakeRegistry, image: TinyImage, repository: str = "app", tag: str = "1") -> str:
    fake.blobs.update(image.blobs)
    fake.add_manifest(repository, tag, image.manifest)
    return f"docker://{fake.host}/{repository}:{tag}"


def serve_index(fake: FakeRegistry) -> tuple[str, Index, tuple[TinyImage, TinyImage]]:
    images = (tiny_image({"amd": b"64"}), tiny_image({"arm": b"64"}, platform=ARM64))
    for image in images:
        serve(fake, image, tag=str(image.manifest.digest))
    index = tiny_index(images)
    fake.add_manifest("app", "all", index)
    return f"docker://{fake.host}/app:all", index, images


class TestAnySourceMeetsAnySink:
    @pytest.fixture
    def name(self, fake: FakeRegistry, tmp_path: Path) -> Callable[[str, str], str]:
        def name(kind: str, what: str) -> str:
            return {
                "docker": f"docker://{fake.host}/{what}:1",
                "oci": f"oci:{tmp_path}/{what}.oci:1",
                "oci-archive": f"oci-archive:{tmp_path}/{what}.oci.tar:1",
                "docker-archive": f"docker-archive:{tmp_path}/{what}.docker.tar:{what}:1",
                "dir": f"dir:{tmp_path}/{what}.dir",
                "store": f"store:{what}:1",
            }[kind]

        return name

    KINDS = ("docker", "oci", "oci-archive", "docker-archive", "dir", "store")

    @pytest.mark.parametrize("sink", KINDS)
    @pytest.mark.parametrize("source", KINDS)
    def test_pair(self, store: Store, name: Callable[[str, str], str], run: Copier, source: str, sink: str) -> None:
        add_to_store(store, IMAGE, "made:1")
        run("made:1", name(source, "first"))
        copied = run(name(source, "first"), name(sink, "second"))
        run(name(sink, "second"), "store:third:1")
        record = store.metadata.name("docker.io/library/third:1")
        assert record is not None
        facts = store.facts(record.target)
        assert facts.config == str(IMAGE.manifest.config.digest)
        if "docker-archive" not in (source, sink):
            assert copied.descriptor.digest == record.target.digest == IMAGE.manifest.digest


class TestIndexes:
    def test_whole_index_keeps_its_bytes_and_children_come_first(self, fake: FakeRegistry, run: Copier) -> None:
        source, index, images = serve_index(fake)
        run(source, f"docker://{fake.host}/mirror:all")
        assert fake.manifests["mirror", "all"] == (index.media_type, index.raw)
        puts = [request.path.rpartition("/")[2] for request in fake.seen("PUT .*/manifests/")]
        assert puts == [*(str(image.manifest.digest) for image in images), "all"]

    def test_one_platform(self, fake: FakeRegistry, run: Copier, store: Store) -> None:
        source, index, images = serve_index(fake)
        copied = run(source, "store:app:all")
        assert (copied.descriptor.digest, copied.source.digest) == (images[0].manifest.digest, index.digest)

    def test_asked_platform(self, fake: FakeRegistry, run: Copier, tmp_path: Path) -> None:
        source, _, images = serve_index(fake)
        options = CopyOptions(OPTIONS.default_platform, platform=ARM64, retry=OPTIONS.retry)
        assert run(source, f"oci:{tmp_path}/x", options).descriptor.digest == images[1].manifest.digest

    def test_absent_platform_lists_what_there_is(self, fake: FakeRegistry, run: Copier, tmp_path: Path) -> None:
        source, _, _ = serve_index(fake)
        options = CopyOptions(Platform("linux", "s390x"), retry=OPTIONS.retry)
        with pytest.raises(ReferenceNotFound, match="no image for linux/s390x; available: linux/amd64, linux/arm64"):
            run(source, f"docker-archive:{tmp_path}/x.tar", options)

    @pytest.mark.parametrize(("nesting", "allowed"), [(3, True), (8, False)])
    def test_nested_indexes_are_bounded(self, fake: FakeRegistry, run: Copier, nesting: int, allowed: bool) -> None:
        serve(fake, IMAGE)
        inner: Descriptor = IMAGE.descriptor
        for _ in range(nesting):
            index = Index.build([inner])
            fake.add_manifest("app", "nested", index)
            inner = replace(index.descriptor, platform=IMAGE.platform)
        for sink in (f"docker://{fake.host}/mirror:1", "store:mirror:1"):
            if allowed:
                run(f"docker://{fake.host}/app:nested", sink)
            else:
                with pytest.raises(InvalidManifest, match="nested deeper than 4"):
                    run(f"docker://{fake.host}/app:nested", sink)

    def test_sparse_index_of_the_store(self, fake: FakeRegistry, store: Store, run: Copier) -> None:
        images = (tiny_image({"amd": b"64"}), tiny_image({"arm": b"64"}, platform=ARM64))
        add_to_store(store, images[0], "one:1")
        index = tiny_index(images)
        with store.session() as session:
            store.add_image(session.put(index.raw, index.media_type), [Reference.parse("docker.io/library/sparse:1")])
        with pytest.raises(BlobNotFound, match="linux/arm64 that it does not hold: choose one with --platform"):
            run("sparse:1", f"docker://{fake.host}/sparse:1")
        assert not [key for key in fake.manifests if key[1] == "1"]

    def test_store_can_hold_an_index(self, fake: FakeRegistry, store: Store, places: Places) -> None:
        text, index, _ = serve_index(fake)
        names = [Reference.parse("app:all")]
        with open_source(text, places) as source, StoreSink(store, names, holds_indexes=True) as sink:
            copy(source, sink, OPTIONS)
        record = store.metadata.name("docker.io/library/app:all")
        assert record is not None
        assert record.target.digest == index.digest
        assert store.facts(record.target).platform == "linux/amd64,linux/arm64"


class TestNothingTwice:
    def test_second_push_sends_no_blob(self, fake: FakeRegistry, store: Store, run: Copier) -> None:
        add_to_store(store, IMAGE, "app:1")
        run("app:1", f"docker://{fake.host}/app:1")
        sent = len(fake.seen("(POST|PUT) .*/uploads/"))
        run("app:1", f"docker://{fake.host}/app:2")
        assert len(fake.seen("(POST|PUT) .*/uploads/")) == sent
        assert ("app", "2") in fake.manifests

    def test_second_pull_fetches_no_blob(self, fake: FakeRegistry, run: Copier) -> None:
        run(serve(fake, IMAGE), "store:app:1")
        fetched = len(fake.seen("GET .*/blobs/"))
        run(serve(fake, IMAGE), "store:app:2")
        assert len(fake.seen("GET .*/blobs/")) == fetched == 3

    def test_blobs_are_mounted_from_another_repository(self, fake: FakeRegistry, run: Copier) -> None:
        events: list[Event] = []
        fake.on("HEAD .*/blobs/", refuse(404), times=9)
        run(serve(fake, IMAGE), f"docker://{fake.host}/mirror:1", progress=events.append)
        assert [event.how for event in events if isinstance(event, BlobDone)] == ["mounted"] * 3
        assert fake.seen("GET .*/blobs/") == fake.seen("PUT .*/uploads/") == []

    def test_failed_mount_uses_the_upload_that_was_opened(self, fake: FakeRegistry, run: Copier) -> None:
        fake.mounts = False
        fake.on("HEAD .*/blobs/", refuse(404), times=9)
        run(serve(fake, IMAGE), f"docker://{fake.host}/mirror:1")
        assert len(fake.seen("POST .*/uploads/")) == len(fake.seen("PUT .*/uploads/")) == 3
        assert fake.uploads == {}


class TestFailures:
    @pytest.mark.parametrize("sink", ["docker://{host}/new:1", "oci:{tmp}/x", "dir:{tmp}/x", "oci-archive:{tmp}/x", "docker-archive:{tmp}/x", "store:new:1"])  # fmt: skip
    def test_wrong_blob_leaves_nothing(
        self, fake: FakeRegistry, store: Store, run: Copier, tmp_path: Path, sink: str
    ) -> None:
        source = serve(fake, IMAGE)
        bad = str(IMAGE.manifest.layers[1].digest)
        fake.on(f"GET .*/blobs/{bad}", with_bytes(lambda data: b"X" + data[1:]), times=9)
        fake.mounts = False
        fake.on("HEAD .*/blobs/", refuse(404), times=99)
        with pytest.raises(DigestMismatch):
            run(source, sink.format(host=fake.host, tmp=tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["store"]
        assert list((tmp_path / "store" / "ingest").iterdir()) == []
        assert not store.metadata.names()
        assert not store.metadata.images()
        assert [key for key in fake.manifests if key[0] == "new"] == []
        assert fake.uploads == {}

    @pytest.mark.parametrize("kind", ["oci", "dir", "oci-archive", "docker-archive"])
    def test_what_was_there_before_is_untouched(
        self, fake: FakeRegistry, store: Store, run: Copier, tmp_path: Path, kind: str
    ) -> None:
        add_to_store(store, tiny_image({"old": b"1"}), "old:1")
        run("old:1", f"{kind}:{tmp_path}/x")
        before = {path: path.read_bytes() for path in (tmp_path / "x", *(tmp_path / "x").rglob("*")) if path.is_file()}
        fake.on("GET .*/blobs/", with_bytes(lambda data: b"X" + data[1:]), times=9)
        with pytest.raises(DigestMismatch):
            run(serve(fake, IMAGE), f"{kind}:{tmp_path}/x")
        assert before == {
            path: path.read_bytes() for path in (tmp_path / "x", *(tmp_path / "x").rglob("*")) if path.is_file()
        }

    def test_one_failure_stops_a_thread_that_waits(self, fake: FakeRegistry, run: Copier) -> None:
        """The other layer's download would be silent for 20 seconds."""
        source = serve(fake, IMAGE)
        first, second = (str(layer.digest) for layer in IMAGE.manifest.layers)
        waiting, released = threading.Event(), threading.Event()
        waited_in_vain: list[bool] = []

        def act(handler: Handler) -> None:
            waiting.set()
            waited_in_vain.append(not released.wait(20))
            handler.hang_up()

        fake.on(f"GET .*/blobs/{first}", act)
        fake.on(
            f"GET .*/blobs/{second}",
            lambda handler: (waiting.wait(20), with_bytes(lambda data: b"X" + data[1:])(handler))[1],
        )
        with pytest.raises(DigestMismatch):
            run(source, "store:app:1")
        assert waited_in_vain == []
        released.set()

    def test_upload_is_repeated_from_its_source(self, fake: FakeRegistry, store: Store, run: Copier) -> None:
        add_to_store(store, BIG, "big:1")
        fake.on("PUT .*/uploads/", refuse(503), times=2)
        run("big:1", f"docker://{fake.host}/big:1")
        assert set(BIG.blobs) <= set(fake.blobs)

    def test_token_that_ends_in_the_middle(self, fake: FakeRegistry, store: Store, run: Copier) -> None:
        add_to_store(store, BIG, "big:1")
        fake.tokens = TokenServer()

        def expire(handler: object) -> None:
            fake.valid_tokens.clear()
            fake.valid_tokens["token-unlike-the-first"] = []
            challenge = f'Bearer realm="{fake.url}/token",service="fake",error="invalid_token"'
            refuse(401, "UNAUTHORIZED", headers={"WWW-Authenticate": challenge})(handler)  # type: ignore[arg-type]

        fake.on("PUT .*/uploads/", expire)
        run("big:1", f"docker://{fake.host}/big:1")
        assert set(BIG.blobs) <= set(fake.blobs)

    def test_manifest_that_is_refused(self, fake: FakeRegistry, store: Store, run: Copier) -> None:
        add_to_store(store, IMAGE, "app:1")
        fake.on("PUT .*/manifests/", refuse(400, "MANIFEST_INVALID", "no"), times=9)
        with pytest.raises(RegistryError, match="400: no"):
            run("app:1", f"docker://{fake.host}/app:1")

    def test_plain_http_only_where_allowed(self, registries: Registries) -> None:
        """A public registry is asked by https alone; the name does not resolve, so nothing is reached."""
        with pytest.raises(RegistryError) as caught:
            registries.repository(Reference.parse("registry.invalid/app:1")).fetch_manifest("1")
        assert caught.value.url.startswith("https://")

    def test_redirect_from_a_blob(self, fake: FakeRegistry, run: Copier) -> None:
        source = serve(fake, IMAGE)
        layer = str(IMAGE.manifest.layers[0].digest)
        fake.on(f"GET /v2/app/blobs/{layer}", redirect(f"/v2/storage/blobs/{layer}?X-Signature=1"))
        assert run(source, "store:app:1").descriptor.digest == IMAGE.manifest.digest


def test_layers_kept_elsewhere_are_named_but_not_copied(fake: FakeRegistry, store: Store, places: Places) -> None:
    foreign = Descriptor(FOREIGN_LAYER, Digest.of(b"elsewhere"), 9, urls=("https://elsewhere.example/layer",))
    config = ImageConfig(Platform("linux", "amd64"), diff_ids=(DiffID.of(b"x"), DiffID.of(b"y"))).encode()
    here = gzip.compress(b"y")
    manifest = Manifest.build(
        Descriptor.of(config, media_types.OCI_CONFIG), [foreign, Descriptor.of(here, media_types.OCI_LAYER_GZIP)]
    )
    image = TinyImage(manifest, {str(Digest.of(data)): data for data in (config, here)})
    with open_source(serve(fake, image), places) as source, StoreSink(store, unpack=True) as sink:
        assert copy(source, sink, OPTIONS).descriptor == manifest.descriptor
    assert not store.content.has(foreign.digest)


def test_progress_tells_every_blob_once_and_the_image_last(fake: FakeRegistry, run: Copier) -> None:
    events: list[Event] = []
    run(serve(fake, IMAGE), "store:app:1", progress=events.append)
    done = [event.descriptor.digest for event in events if isinstance(event, BlobDone)]
    assert sorted(map(str, done)) == sorted(IMAGE.blobs)
    assert events[-1] == ManifestDone(IMAGE.manifest.descriptor, "copied")


def test_memory_does_not_grow_with_the_blob(store: Store, tmp_path: Path) -> None:
    size = 64 << 20
    image = tiny_image({"zeros": bytes(size)}, compress=False)
    add_to_store(store, image, "big:1")
    del image
    with anonymous_registries() as registries:
        places = Places(lambda: store, registries)
        tracemalloc.start()
        try:
            for sink in (f"oci:{tmp_path}/x", f"docker-archive:{tmp_path}/y"):
                with open_source("big:1", places) as source, open_sink(sink, places) as place:
                    copy(source, place, OPTIONS)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < size / 4


@pytest.mark.parametrize("text", ["containers-storage:x", "ftp://x/y", "foo:/path", "oci:"])
def test_unknown_transports_are_refused(places: Places, text: str) -> None:
    with pytest.raises(TierceError, match=r"is not supported: use one of docker://|nothing follows"):
        open_source(text, places)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("docker:24-dind", "store:docker:24-dind"),
        ("alpine", "store:alpine"),
        ("r.example:5000/a:1", "store:r.example:5000/a:1"),
    ],
)
def test_names_without_a_transport_are_in_the_store(places: Places, text: str, name: str) -> None:
    assert open_source(text, places).name == name
