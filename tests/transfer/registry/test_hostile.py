"""Registries that lie, stall, lead astray and flood: refused in one clear line, and nothing is left of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.registries import DOCKER_HUB, GHCR, PLAIN, Emulator
from fixtures.registries.faults import (
    Fault,
    answered,
    endless,
    redirected,
    refused,
    silent_until,
    trickled,
    truncated,
    with_body,
    with_headers,
)
from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import DigestMismatch, InvalidManifest, RegistryError, SizeMismatch, TierceError
from image.manifest import Index
from image.reference import Reference
from store.store import Store
from tests.support.registry_lab import BOB, PATH, Lab, add, read, upload
from tests.support.tiny_image import tiny_image
from tests.support.transfers import OPTIONS, QUICK
from transfer.copy import copy
from transfer.pull import pull
from transfer.registry.client import Repository
from transfer.registry.retry import Retry
from transfer.registry.transport import Timeouts
from transfer.transports.registry import RegistrySink, RegistrySource

IMAGE = tiny_image({"a": bytes(range(256)) * 2000}, {"b": b"2"})
OTHER = tiny_image({"other": b"1"})
LAYER = IMAGE.manifest.layers[0]
BLOB = IMAGE.blobs[str(LAYER.digest)]
LAYER_PATH = f"GET .*{LAYER.digest}"


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def another_index(depth: int) -> Index:
    """Indexes of indexes."""
    index = Index.build([IMAGE.descriptor])
    for _ in range(depth):
        index = Index.build([index.descriptor])
    return index


CONTENT = [
    pytest.param("GET .*/manifests/", with_body(lambda _: OTHER.manifest.raw), DigestMismatch, "manifest of me/app:1 has digest", id="manifest-of-another"),
    pytest.param("GET .*/manifests/", endless({"Content-Type": media_types.OCI_MANIFEST}), TierceError, "larger than", id="endless-manifest"),
    pytest.param("GET .*/manifests/", answered(200, b"[" * 1_000_000, {"Content-Type": media_types.OCI_MANIFEST}), InvalidManifest, "not JSON", id="deep-manifest"),
    pytest.param("GET .*/manifests/", answered(200, b'{"schemaVersion":2,"schemaVersion":2}', {"Content-Type": media_types.OCI_MANIFEST}), InvalidManifest, "a key occurs twice", id="duplicate-keys"),
    pytest.param("GET .*/manifests/", answered(200, IMAGE.manifest.raw.replace(str(LAYER.digest).encode(), b"sha256:../../../../etc/passwd"), {"Content-Type": media_types.OCI_MANIFEST}), InvalidManifest, "invalid digest", id="digest-with-a-path"),
    pytest.param(LAYER_PATH, with_body(flipped), DigestMismatch, "has digest", id="blob-of-the-right-length"),
    pytest.param(LAYER_PATH, with_body(lambda data: data + b"x"), SizeMismatch, "bytes, expected", id="longer-blob"),
    pytest.param(LAYER_PATH, with_body(lambda data: data[:-1]), SizeMismatch, "bytes, expected", id="shorter-blob"),
    pytest.param(LAYER_PATH, endless(), SizeMismatch, "bytes, expected", id="endless-blob"),
    pytest.param(LAYER_PATH, answered(206, BLOB[5:], {"Content-Range": f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"}), TierceError, "206", id="a-part-that-nobody-asked-for"),
    pytest.param(LAYER_PATH, truncated(0), RegistryError, "broke|Incomplete|valid HTTP", id="breaks-off-for-ever"),
]  # fmt: skip


@pytest.fixture
def source(plain: Emulator) -> Emulator:
    add(plain, IMAGE)
    return plain


class TestNothingIsLeft:
    """A copy that was refused leaves the destination as it was."""

    @pytest.mark.parametrize(("pattern", "fault", "kind", "words"), CONTENT)
    def test_of_a_copy(
        self, source: Emulator, lab: Lab, pattern: str, fault: Fault, kind: type[TierceError], words: str
    ) -> None:
        target = lab.run(PLAIN)
        add(target, OTHER)
        before = target.content()[PATH]
        source.on(pattern, fault, times=1000)
        registries = lab.registries(source, target)
        origin, place = (Reference.parse(f"{registry.host}/{PATH}:1") for registry in (source, target))
        reader, sink = RegistrySource(origin, registries), RegistrySink(place, registries)
        with pytest.raises(kind, match=words) as caught, reader, sink:
            copy(reader, sink, OPTIONS)
        assert "\n" not in str(caught.value)
        after = target.content()[PATH]
        assert (after["tags"], after["manifests"]) == (before["tags"], before["manifests"])
        assert str(LAYER.digest) not in after["blobs"]

    @pytest.mark.parametrize(("pattern", "fault", "kind", "words"), CONTENT)
    def test_of_a_pull(
        self, source: Emulator, lab: Lab, store: Store, tmp_path: Path,
        pattern: str, fault: Fault, kind: type[TierceError], words: str,
    ) -> None:  # fmt: skip
        source.on(pattern, fault, times=1000)
        reference = Reference.parse(f"{source.host}/{PATH}:1")
        with pytest.raises(kind, match=words):
            pull(reference, store, lab.registries(source), OPTIONS, unpack=False)
        assert store.metadata.name(str(reference)) is None
        files = [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert LAYER.digest.encoded not in files
        assert not [name for name in files if "tmp" in name or "partial" in name]

    def test_nested_indexes(self, source: Emulator, lab: Lab) -> None:
        for depth in range(7):
            index = another_index(depth)
            source.add_manifest(PATH, f"deep{depth}", index.media_type, index.raw)
        target = lab.run(PLAIN)
        registries = lab.registries(source, target)
        place = Reference.parse(f"{target.host}/{PATH}:1")
        reader = RegistrySource(Reference.parse(f"{source.host}/{PATH}:deep6"), registries)
        sink = RegistrySink(place, registries)
        with pytest.raises(InvalidManifest, match="nested deeper"), reader, sink:
            copy(reader, sink, OPTIONS)
        assert target.content()[PATH]["manifests"] == {}

    def test_index_that_names_itself(self, source: Emulator, lab: Lab) -> None:
        """It can't, by digest: what it would have to hash to is not what it hashes to."""
        circle = Index.build([Descriptor(media_types.OCI_INDEX, Digest.of(b"circle"), 300)])
        source.storage.create(PATH).manifests[str(Digest.of(b"circle"))] = replace(
            source.storage.manifest(PATH, "1")[1], media_type=circle.media_type, raw=circle.raw  # type: ignore[index]
        )  # fmt: skip
        with pytest.raises(DigestMismatch):
            lab.open(source).fetch_manifest(str(Digest.of(b"circle")))


class TestResuming:
    def test_goes_on_where_it_broke(self, source: Emulator, lab: Lab) -> None:
        source.on(LAYER_PATH, truncated(1000))
        assert read(lab.open(source), LAYER) == BLOB
        assert source.seen(LAYER_PATH)[1].headers["range"] == "bytes=1000-"

    def test_answered_with_the_whole(self, source: Emulator, lab: Lab) -> None:
        source.on(LAYER_PATH, truncated(1000))
        source.on(LAYER_PATH, answered(200, BLOB))
        assert read(lab.open(source), LAYER) == BLOB

    @pytest.mark.parametrize(
        "told", ["bytes 5-{end}/{size}", "bytes 1000-{end}/9", "bytes 1000-1001/{size}", "bytes */{size}", "1000-{end}", ""]
    )  # fmt: skip
    def test_answered_with_another_part(self, source: Emulator, lab: Lab, told: str) -> None:
        source.on(LAYER_PATH, truncated(1000))
        lie = told.format(end=len(BLOB) - 1, size=len(BLOB))
        source.on(LAYER_PATH, with_headers(Content_Range=lie), times=100)
        with pytest.raises(RegistryError):
            read(lab.open(source), LAYER)


class TestLedAstray:
    """No login goes where it must not, and neither do we."""

    @pytest.fixture
    def other(self, lab: Lab) -> Emulator:
        """Another host, that must not learn anything."""
        other = lab.run(PLAIN)
        other.add_blob(PATH, BLOB)
        return other

    @pytest.fixture
    def ghcr(self, lab: Lab) -> Emulator:
        registry = lab.run(GHCR)
        add(registry, IMAGE)
        return registry

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("http://ghcr.io/v2/", "from https to http"),
            ("https://127.0.0.1:1/", "private address 127.0.0.1"),
            ("https://localhost/", "private address localhost"),
            ("https://169.254.169.254/latest", "private address 169.254.169.254"),
            ("https://[::1]/", "private address ::1"),
            ("https://10.1.2.3/", "private address 10.1.2.3"),
            ("file:///etc/passwd", "invalid Location"),
        ],
    )
    @pytest.mark.parametrize("what", ["GET .*/blobs/", "GET .*/manifests/", "POST .*/uploads/", "GET /token"])
    def test_ways_that_are_refused(self, ghcr: Emulator, lab: Lab, what: str, target: str, words: str) -> None:
        status = 202 if "uploads" in what else 307
        ghcr.on(what, redirected(target, status), times=100)
        repository = lab.open(ghcr)
        with pytest.raises(RegistryError, match=words) as caught:
            repository.fetch_manifest("1")
            read(repository, LAYER)
            upload(repository, b"data")
        assert "hunter2" not in str(vars(caught.value))

    def test_redirect_to_another_host_without_login(self, lab: Lab, source: Emulator, other: Emulator) -> None:
        registry = lab.run(replace(PLAIN, auth="basic"))
        add(registry, IMAGE)
        registry.on(LAYER_PATH, redirected(f"{other.url}/v2/{PATH}/blobs/{LAYER.digest}"))
        registries = lab.registries(registry, credential=BOB)
        repository = registries.repository(Reference.parse(f"{registry.host}/{PATH}:1"))
        assert read(repository, LAYER) == BLOB
        assert registry.seen(LAYER_PATH)[0].authorization
        assert [request.authorization for request in other.requests] == [""]

    def test_upload_to_another_host_without_login(self, lab: Lab, other: Emulator) -> None:
        registry = lab.run(replace(PLAIN, auth="basic"))
        opened = other.storage.open_upload(PATH)
        place = f"{other.url}/v2/{PATH}/blobs/uploads/{opened}?_state=1"
        registry.on("POST .*/uploads/", answered(202, headers={"Location": place}))
        registries = lab.registries(registry, credential=BOB)
        upload(registries.repository(Reference.parse(f"{registry.host}/{PATH}:1"), push=True), b"data")
        assert {request.authorization for request in other.requests} == {""}

    @pytest.mark.parametrize("path", ["tags/list", f"referrers/{IMAGE.manifest.digest}"])
    def test_next_page_elsewhere(self, source: Emulator, lab: Lab, other: Emulator, path: str) -> None:
        source.on(f"GET .*/{path}", with_headers(Link=f'<{other.url}/v2/{PATH}/{path}>; rel="next"'))
        repository = lab.open(source)
        with pytest.raises(RegistryError, match="refused a next page on another host"):
            repository.tags() if "tags" in path else repository.referrers(IMAGE.manifest.digest)
        assert other.requests == []

    @pytest.mark.parametrize(
        ("realm", "words"),
        [
            ("http://auth.example/token", "without https"),
            ("https://127.0.0.1:1/token", "private address 127.0.0.1"),
            ("https://192.168.1.1/token", "private address 192.168.1.1"),
            ("gopher://auth.example", "names no token server"),
            ("", "names no token server"),
        ],
    )
    def test_token_server_elsewhere(self, ghcr: Emulator, lab: Lab, realm: str, words: str) -> None:
        ghcr.on("GET /v2/$", refused(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}))
        with pytest.raises(RegistryError, match=words):
            lab.open(ghcr).fetch_manifest("1")
        assert [request for request in ghcr.requests if request.authorization] == []

    def test_token_server_of_another_registry_is_not_sent_our_token(self, lab: Lab) -> None:
        """A challenge in a later reply changes neither realm nor service."""
        registry = lab.run(DOCKER_HUB)
        add(registry, IMAGE)
        evil = 'Bearer realm="https://evil.example/token",service="evil",error="insufficient_scope",scope="repository:b:pull"'
        registry.on("GET .*/manifests/", refused(401, headers={"WWW-Authenticate": evil}))
        lab.open(registry).fetch_manifest("1")
        assert registry.proxy is not None
        assert not [line for line in registry.proxy.asked if "evil" in line]


class TestEndless:
    @pytest.mark.parametrize("path", ["tags/list", f"referrers/{IMAGE.manifest.digest}"])
    def test_pages(self, source: Emulator, lab: Lab, path: str) -> None:
        source.on(f"GET .*/{path}", with_headers(Link=f'</v2/{PATH}/{path}?again>; rel="next"'), times=1000)
        repository = lab.open(source)
        with pytest.raises(RegistryError, match="pages never end"):
            repository.tags() if "tags" in path else repository.referrers(IMAGE.manifest.digest)

    def test_catalog_by_tokens(self, source: Emulator, lab: Lab) -> None:
        source.on("GET /v2/_catalog", answered(200, b'{"repositories":["a"],"next_page":"x"}'), times=1000)
        with pytest.raises(RegistryError, match="pages never end"):
            lab.open(source).catalog()

    def test_list(self, source: Emulator, lab: Lab) -> None:
        source.on("GET .*/tags/list", endless({"Content-Type": "application/json"}))
        with pytest.raises(RegistryError, match="larger than"):
            lab.open(source).tags()

    def test_token(self, lab: Lab) -> None:
        registry = lab.run(GHCR)
        registry.on("GET /token", endless())
        with pytest.raises(RegistryError, match="larger than"):
            lab.open(registry).fetch_manifest("1")

    def test_redirects(self, source: Emulator, lab: Lab) -> None:
        source.on("GET .*/blobs/", redirected(f"/v2/{PATH}/blobs/{LAYER.digest}"), times=1000)
        with pytest.raises(RegistryError, match="too many redirects"):
            read(lab.open(source), LAYER)

    def test_refused_login(self, lab: Lab) -> None:
        """A registry that takes no token it asked for is asked twice, not for ever."""
        registry = lab.run(GHCR)
        add(registry, IMAGE)
        offer = 'Bearer realm="https://ghcr.io/token",service="ghcr.io",error="insufficient_scope",scope="repository:y:pull"'
        registry.on("GET .*/manifests/", refused(401, headers={"WWW-Authenticate": offer}), times=1000)
        with pytest.raises(RegistryError, match="access denied"):
            lab.open(registry).fetch_manifest("1")
        assert len(registry.seen("GET .*/manifests/")) == 2


class TestSlow:
    @pytest.mark.parametrize("what", ["GET .*/manifests/", LAYER_PATH, ".*/tags/list"])
    def test_one_byte_now_and_then(self, source: Emulator, lab: Lab, what: str) -> None:
        source.on(what, trickled(0.02), times=1000)
        hasty = Timeouts(idle_s=20, total_s=0.3, slowest_rate=1 << 30)
        with pytest.raises(TierceError, match=r"in time|bytes, expected"):
            self.use(lab.open(source, timeouts=hasty, retry=replace(QUICK, attempts=2)))

    def test_silence(self, source: Emulator, lab: Lab) -> None:
        done = threading.Event()
        source.on("GET .*/manifests/", silent_until(done), times=1000)
        with pytest.raises(RegistryError, match="did not answer in time"):
            self.use(lab.open(source, timeouts=Timeouts(idle_s=0.2), retry=replace(QUICK, attempts=2)))
        done.set()

    def use(self, repository: Repository) -> None:
        repository.fetch_manifest("1")
        read(repository, LAYER)
        repository.tags()

    @pytest.mark.parametrize(
        "asked", ["99999999999", "-5", "0", "soon", "", "1e9", "Tue, 14 Nov 2000 22:13:30 GMT", "Tue, 14 Nov 2999 22:13:30 GMT"]
    )  # fmt: skip
    def test_retry_after(self, source: Emulator, lab: Lab, asked: str) -> None:
        source.on("GET .*/manifests/", refused(429, "TOOMANYREQUESTS", headers={"Retry-After": asked}), times=3)
        waited: list[float] = []
        retry = Retry(attempts=5, sleep=waited.append, jitter=lambda: 1.0)
        lab.open(source, retry=retry).fetch_manifest("1")
        assert len(waited) == 3
        assert all(0 <= wait_s <= 61 for wait_s in waited)
