"""Tokens, uploads, referrers and limits where a registry or the way to it makes it hard."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from fixtures.registries import DOCKER_HUB, GHCR, PLAIN, QUAY, Emulator
from fixtures.registries.faults import after, dropped, held_until, lost, refused, sometimes, truncated, with_headers
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import Cancelled, RegistryError
from image.manifest import Index, Manifest
from tests.support.registry_lab import PATH, Lab, add, push, read, upload
from tests.support.tiny_image import TinyImage, tiny_image
from transfer.registry.client import Repository, Upload
from transfer.registry.credential import Credential
from transfer.registry.limits import Gate, Limits
from transfer.registry.pace import Pace
from transfer.registry.referrers import referrers_tag
from transfer.registry.wire import Origin

BLOB = bytes(range(256)) * 41_500  # 10.6 MB: three chunks at every registry
DESCRIPTOR = Descriptor.of(BLOB, "application/octet-stream")
MIB = 1 << 20


def begun(repository: Repository) -> Upload:
    opened = repository.begin_upload()
    assert opened is not None
    return opened


class TestTokens:
    def test_scopes_are_merged(self, lab: Lab) -> None:
        """Who may push may pull: one token serves both, and the one for a mount serves all after it."""
        registry = lab.run(DOCKER_HUB)
        digest = Digest(registry.add_blob("me/base", b"shared"))
        add(registry, tiny_image())
        authorizer = lab.authorizer(registry)
        pusher, reader = (
            Repository(PATH, authorizer, authorizer._transport, actions=actions)
            for actions in (("pull", "push"), ("pull",))
        )
        pusher.begin_upload(mount=digest, source="me/base")
        upload(pusher, b"more")
        reader.fetch_manifest("1")
        asked = registry.seen("GET /token")
        assert [request.query["scope"] for request in asked] == [
            [f"repository:{PATH}:pull,push", "repository:me/base:pull"]
        ]

    def test_missing_expires_in(self, lab: Lab) -> None:
        """GitHub says nothing of a token's life: a minute is assumed."""
        registry = lab.run(GHCR)
        add(registry, tiny_image())
        now = [1000.0]
        registry.tokens.clock = lambda: now[0]
        repository = lab.open(registry, clock=lambda: now[0])
        for _ in range(4):
            repository.fetch_manifest("1")
            now[0] += 30
        assert len(registry.seen("GET /token")) == 2

    @pytest.mark.parametrize("oauth", [True, False], ids=["form", "404-then-get"])
    def test_identity_token(self, lab: Lab, oauth: bool) -> None:
        registry = lab.run(replace(DOCKER_HUB, oauth=oauth))
        registry.tokens.identity_tokens["renewable"] = "bob"
        registry.tokens.private.add(PATH)
        add(registry, tiny_image())
        lab.open(registry, credential=Credential(identity_token="renewable")).fetch_manifest("1")
        assert [request.method for request in registry.seen("/token")] == (["POST"] if oauth else ["POST", "GET"])

    def test_insufficient_scope_is_asked_for_once(self, lab: Lab) -> None:
        registry = lab.run(DOCKER_HUB)
        registry.tokens.denied.add((f"repository:{PATH}", "push"))
        with pytest.raises(RegistryError, match=r"push to docker\.io/me/app: access denied for bob"):
            begun(lab.open(registry))
        assert len(registry.seen("GET /token")) == 2

    def test_one_token_for_many_threads(self, lab: Lab) -> None:
        registry = lab.run(QUAY)
        add(registry, tiny_image())
        repository = lab.open(registry)
        release = threading.Event()
        registry.on("GET /v2/auth", held_until(release))
        threads = [threading.Thread(target=repository.fetch_manifest, args=("1",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while not registry.seen("GET /v2/auth"):
            threading.Event().wait(0.005)
        release.set()
        for thread in threads:
            thread.join()
        assert len(registry.seen("GET /v2/auth")) == 1

    def test_token_that_ends_between_stream_and_finish(self, lab: Lab) -> None:
        registry = lab.run(DOCKER_HUB)
        repository = lab.open(registry)
        opened = begun(repository)
        registry.on("PUT .*/uploads/", after(registry.tokens.expire))
        repository.upload_stream(iter([BLOB]), opened, lambda: DESCRIPTOR.digest)
        assert registry.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    def test_several_challenges(self, lab: Lab, plain: Emulator) -> None:
        """Bearer is chosen among others, in one field or in several."""
        registry = lab.run(QUAY)
        add(registry, tiny_image())
        offer = 'Negotiate, Basic realm="x", Bearer realm="https://quay.io/v2/auth",service="quay.io"'
        registry.on("GET /v2/$", with_headers(WWW_Authenticate=offer))
        lab.open(registry).fetch_manifest("1")


class TestUploads:
    def test_reply_that_was_lost(self, each: Emulator, lab: Lab) -> None:
        """The registry has done it, and nobody heard."""
        repository = lab.open(each)
        opened = begun(repository)
        each.on("PUT .*/uploads/", lost(), times=1)
        repository.upload(DESCRIPTOR, iter([BLOB]), opened)
        assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    @pytest.mark.parametrize("method", ["PATCH", "PUT"])
    def test_chunk_whose_reply_was_lost(self, each: Emulator, lab: Lab, method: str) -> None:
        repository = lab.open(each)
        opened = begun(repository)
        each.on(f"{method} .*/uploads/", lost(), times=2)
        repository.upload_chunks(iter([BLOB]), opened, lambda: DESCRIPTOR.digest)
        assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    def test_state_in_the_location_comes_back(self, plain: Emulator, lab: Lab) -> None:
        repository = lab.open(plain)
        repository.upload_chunks(iter([BLOB]), begun(repository), lambda: DESCRIPTOR.digest)
        sent = plain.seen("PATCH|PUT")
        assert all(request.query["_state"][0].endswith("+=") for request in sent)
        assert len({request.query["_state"][0] for request in sent}) == len(sent)

    @pytest.mark.parametrize("minimum", [1, 6 * MIB])
    def test_chunk_minimum_is_honoured(self, lab: Lab, minimum: int) -> None:
        registry = lab.run(replace(PLAIN, chunk_minimum=minimum, announces_minimum=True))
        repository = lab.open(registry)
        repository.upload_chunks(iter([BLOB]), begun(repository), lambda: DESCRIPTOR.digest)
        *whole, _last = registry.seen("PATCH")
        assert {len(request.body) for request in whole} == {max(minimum, 4 * MIB)}

    def test_chunk_minimum_beyond_memory_is_refused(self, lab: Lab) -> None:
        registry = lab.run(replace(PLAIN, chunk_minimum=1 << 30, announces_minimum=True))
        repository = lab.open(registry)
        with pytest.raises(RegistryError, match="wants chunks of 1073741824 bytes"):
            repository.upload_chunks(iter([BLOB]), begun(repository), lambda: DESCRIPTOR.digest)

    def test_chunk_that_is_too_large_goes_in_pieces(self, lab: Lab) -> None:
        """A limit that nobody told of."""
        registry = lab.run(replace(PLAIN, chunk_limit=MIB + 500_000))
        repository = lab.open(registry)
        repository.upload_chunks(iter([BLOB]), begun(repository), lambda: DESCRIPTOR.digest)
        assert registry.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    def test_unknown_registry_that_counts_one_too_many(self, lab: Lab) -> None:
        registry = lab.run(replace(PLAIN, upload_status="one-too-high", status_has_location=False))
        repository = lab.open(registry)
        opened = begun(repository)
        registry.on("PATCH", after(lambda: None))
        registry.on("PATCH", dropped(), times=2)
        repository.upload_chunks(iter([BLOB]), opened, lambda: DESCRIPTOR.digest)
        assert registry.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    def test_upload_that_another_process_goes_on_with(self, each: Emulator, lab: Lab) -> None:
        first = lab.open(each)
        kept: list[Upload] = []

        def stops() -> Iterator[bytes]:
            yield BLOB[: 10 * MIB]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.upload_chunks(stops(), begun(first), lambda: DESCRIPTOR.digest, keep=kept.append)
        second = lab.open(each)
        found = second.find_upload(kept[-1])
        assert found is not None
        assert 0 < found.offset <= 10 * MIB
        second.upload_chunks(iter([BLOB[found.offset :]]), found, lambda: DESCRIPTOR.digest, keep=kept.append)
        assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB

    def test_upload_that_the_registry_forgot(self, plain: Emulator, lab: Lab) -> None:
        repository = lab.open(plain)
        opened = begun(repository)
        plain.storage.uploads.clear()
        assert repository.find_upload(opened) is None

    def test_failed_upload_is_cancelled(self, plain: Emulator, lab: Lab) -> None:
        def broken() -> Iterator[bytes]:
            yield BLOB[: 9 * MIB]
            raise Cancelled("stopped")

        repository = lab.open(plain)
        with pytest.raises(Cancelled):
            repository.upload_chunks(broken(), begun(repository), lambda: DESCRIPTOR.digest)
        assert plain.storage.uploads == {}
        assert plain.storage.blobs == {}

    def test_storm(self, each: Emulator, lab: Lab) -> None:
        """One request in four fails, in all ways; the image arrives whole, and is read whole."""
        faults = [dropped(), lost(), refused(500), refused(503, headers={"Retry-After": "0"}), truncated(50)]
        image = tiny_image({"a": b"1" * 100_000}, {"b": b"2"})
        repository = lab.open(each)
        opened = begun(repository)
        each.on("(PATCH|GET .*/uploads/|GET .*/blobs/|/manifests/)", sometimes(Random(5), 0.25, faults), times=10_000)
        repository.upload_chunks(iter([BLOB]), opened, lambda: DESCRIPTOR.digest)
        for digest, data in image.blobs.items():
            each.add_blob(PATH, data, digest)
        repository.put_manifest("1", image.manifest)
        _, manifest = repository.fetch_manifest("1")
        assert isinstance(manifest, Manifest)
        assert [read(repository, blob) for blob in manifest.children] == list(image.blobs.values())
        assert read(repository, DESCRIPTOR) == BLOB


class TestReferrersUnderATag:
    @pytest.fixture
    def registry(self, lab: Lab) -> Emulator:
        registry = lab.run(replace(PLAIN, referrers="missing", sends_subject=False))
        add(registry, tiny_image())
        return registry

    def artifacts(self, repository: Repository, count: int) -> list[Manifest]:
        config = upload(repository, b"{}")
        subject = tiny_image().manifest.descriptor
        return [Manifest.build(config, [], subject=subject, artifact_type=f"example/{n}") for n in range(count)]

    def test_threads_lose_nothing(self, registry: Emulator, lab: Lab) -> None:
        repository = lab.open(registry)
        made = self.artifacts(repository, 8)
        threads = [threading.Thread(target=repository.put_manifest, args=(str(m.digest), m)) for m in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {entry.digest for entry in repository.referrers(tiny_image().manifest.digest)} == {
            m.digest for m in made
        }

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_another_process_writes_at_the_same_time(self, registry: Emulator, lab: Lab, when: str) -> None:
        """Just before ours, so that ours takes its place; or just after, so that it takes the place of ours."""
        repository = lab.open(registry)
        ours, theirs = self.artifacts(repository, 2)
        registry.add_manifest(PATH, str(theirs.digest), theirs.media_type, theirs.raw)
        tag = referrers_tag(tiny_image().manifest.digest)

        def write() -> None:
            entry = replace(theirs.descriptor, artifact_type=theirs.artifact_type)
            index = Index.build([entry])
            registry.add_manifest(PATH, tag, index.media_type, index.raw)

        lab.open(registry)
        if when == "before":
            registry.on(f"PUT .*/{tag}", after(write))
        else:
            registry.on(f"PUT .*/{tag}", after(lambda: None))
            registry.on(f"GET .*/{tag}", after(lambda: None))
            registry.on(f"GET .*/{tag}", after(write))
        repository.put_manifest(str(ours.digest), ours)
        lab.open(registry).put_manifest(str(theirs.digest), theirs)  # what the other process does when it looks again
        found = {entry.digest for entry in repository.referrers(tiny_image().manifest.digest)}
        assert found == {ours.digest, theirs.digest}

    def test_if_match_where_it_is_heeded(self, lab: Lab) -> None:
        registry = lab.run(replace(PLAIN, referrers="missing", sends_subject=False, conditional=True))
        add(registry, tiny_image())
        repository = lab.open(registry)
        first, ours, theirs = self.artifacts(repository, 3)
        repository.put_manifest(str(first.digest), first)
        tag = referrers_tag(tiny_image().manifest.digest)
        there = registry.storage.manifest(PATH, tag)
        assert there is not None
        registry.add_manifest(PATH, str(theirs.digest), theirs.media_type, theirs.raw)
        index = Index.build([first.descriptor, theirs.descriptor])
        registry.on(f"PUT .*/{tag}", after(lambda: registry.add_manifest(PATH, tag, index.media_type, index.raw)))
        repository.put_manifest(str(ours.digest), ours)
        found = {entry.digest for entry in repository.referrers(tiny_image().manifest.digest)}
        assert found == {first.digest, ours.digest, theirs.digest}
        assert [request.headers.get("if-match", "")[1:8] for request in registry.seen(f"PUT .*/{tag}")] == ["", "sha256:", "sha256:"]  # fmt: skip


class TestLimits:
    def test_no_more_requests_at_once_than_allowed(self, plain: Emulator, lab: Lab) -> None:
        add(plain, tiny_image())
        repository = lab.open(plain)
        repository.transport._gate = Gate(Limits(concurrent=2), repository.transport.clock, Pace(0))
        repository.fetch_manifest("1")
        at_once, most, lock = 0, 0, threading.Lock()
        all_here = threading.Event()

        def enter(_exchange: object, proceed: object) -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
                if at_once == 2:
                    all_here.set()
            all_here.wait(10)
            with lock:
                at_once -= 1
            proceed()  # type: ignore[operator]

        plain.on("GET .*/manifests/", enter, times=100)
        threads = [threading.Thread(target=repository.fetch_manifest, args=("1",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 2

    def test_pace(self) -> None:
        slept: list[float] = []
        gate = Gate(Limits(per_second=4), lambda: 100.0, Pace(0))
        for _ in range(3):
            with gate.turn(Origin("https", "r.example", 443), slept.append):
                pass
        with gate.turn(Origin("https", "other.example", 443), slept.append):
            pass
        assert slept == [0.25, 0.5]


class TestProxies:
    def test_all_goes_through_the_proxy(self, lab: Lab) -> None:
        """Registry, token server and blob store, each with its own certificate check behind CONNECT."""
        registry = lab.run(DOCKER_HUB)
        image: TinyImage = tiny_image()
        repository = lab.open(registry)
        push(repository, image, "1")
        _, manifest = repository.fetch_manifest("1")
        assert isinstance(manifest, Manifest)
        read(repository, manifest.config)
        assert registry.proxy is not None
        assert {line.split()[1] for line in registry.proxy.asked} == {
            "registry-1.docker.io:443", "auth.docker.io:443", "production.cloudflare.docker.com:443",
        }  # fmt: skip

    def test_password_goes_to_the_proxy_alone(self, lab: Lab) -> None:
        registry = lab.run(GHCR)
        add(registry, tiny_image())
        authorizer = lab.authorizer(registry)
        transport = authorizer._transport
        transport._environ = {"HTTPS_PROXY": registry.environ["HTTPS_PROXY"].replace("http://", "http://u:p%40ss@")}
        Repository(PATH, authorizer, transport).fetch_manifest("1")
        assert registry.proxy is not None
        assert set(registry.proxy.authorizations) == {"Basic " + base64.b64encode(b"u:p@ss").decode()}
        assert not [request for request in registry.requests if "proxy-authorization" in request.headers]
