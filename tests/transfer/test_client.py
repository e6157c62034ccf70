"""The client against a registry that lies, breaks off, stalls and expires."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import (
    BlobNotFound,
    Cancelled,
    DigestMismatch,
    InvalidManifest,
    ReferenceNotFound,
    RegistryError,
    SizeMismatch,
    TierceError,
)
from tests.support.fake_registry import (
    FakeRegistry,
    Handler,
    TokenServer,
    answer,
    endless,
    fake_registry,
    redirect,
    refuse,
    silent_until,
    trickle,
    truncated,
    with_bytes,
)
from tests.support.process import free_port
from tests.support.tiny_image import tiny_image
from tests.support.transfers import Opener
from transfer.registry.challenge import Credential, check_realm
from transfer.registry.client import Repository
from transfer.registry.transport import Timeouts, Transport
from transfer.registry.wire import Request

BLOB = bytes(range(256)) * 12_000  # 3 MB, so that several blocks and the hash thread take part
DESCRIPTOR = Descriptor.of(BLOB, media_types.OCI_LAYER)
BOB = Credential("bob", "hunter2")


def read(repository: Repository, blob: Descriptor = DESCRIPTOR) -> bytes:
    with repository.open_blob(blob) as blocks:
        return b"".join(bytes(block) for block in blocks)


def upload(repository: Repository, data: bytes) -> None:
    opened = repository.begin_upload()
    assert opened is not None
    repository.upload(Descriptor.of(data, "x"), iter([data]), opened)


class TestBlobs:
    def test_whole(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        assert read(open_repository()) == BLOB

    @pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
    def test_sizes_around_a_block(self, fake: FakeRegistry, open_repository: Opener, size: int) -> None:
        fake.add_blob(BLOB[:size])
        assert read(open_repository(), Descriptor.of(BLOB[:size], "x")) == BLOB[:size]

    def test_sha512(self, fake: FakeRegistry, open_repository: Opener) -> None:
        digest = Digest.of(BLOB, "sha512")
        fake.blobs[str(digest)] = BLOB
        assert read(open_repository(), Descriptor("x", digest, len(BLOB))) == BLOB

    def test_truncated_body_is_resumed_where_it_broke(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", truncated(1_500_000))
        assert read(open_repository()) == BLOB
        assert fake.seen("GET .*/blobs/")[1].headers["range"] == "bytes=1500000-"

    def test_resume_answered_with_the_whole_is_not_concatenated(
        self, fake: FakeRegistry, open_repository: Opener
    ) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", truncated(1_500_000))
        fake.on("GET .*/blobs/", answer(200, BLOB))
        assert read(open_repository()) == BLOB

    def test_resume_with_another_range_is_refused(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", truncated(1_500_000))
        wrong = {"Content-Range": f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"}
        fake.on("GET .*/blobs/", answer(206, BLOB[5:], wrong), times=9)
        with pytest.raises(RegistryError):
            read(open_repository())

    def test_endless_breaking_off_ends(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", truncated(0), times=1000)
        with pytest.raises(RegistryError, match="broke off after 0 of"):
            read(open_repository())
        assert len(fake.seen("GET .*/blobs/")) == 5

    def test_wrong_bytes_of_the_right_length(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", with_bytes(lambda data: b"X" + data[1:]))
        with pytest.raises(DigestMismatch):
            read(open_repository())

    @pytest.mark.parametrize("extra", [1, 1 << 22])
    def test_longer_than_promised(self, fake: FakeRegistry, open_repository: Opener, extra: int) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", with_bytes(lambda data: data + bytes(extra)))
        with pytest.raises(SizeMismatch):
            read(open_repository())

    def test_endless_body_without_a_length(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/blobs/", endless("x"))
        with pytest.raises(SizeMismatch):
            read(open_repository())

    def test_absent(self, open_repository: Opener) -> None:
        with pytest.raises(BlobNotFound):
            read(open_repository())

    def test_server_errors_are_repeated(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_blob(BLOB)
        fake.on("GET .*/blobs/", refuse(500), times=2)
        assert read(open_repository()) == BLOB


class TestManifests:
    def test_raw_bytes_and_digest(self, fake: FakeRegistry, open_repository: Opener) -> None:
        image = tiny_image()
        fake.add_manifest("app", "1", image.manifest)
        descriptor, manifest = open_repository().fetch_manifest("1")
        assert (manifest.raw, descriptor.digest) == (image.manifest.raw, image.manifest.digest)

    def test_other_bytes_than_the_digest_asked_for(self, fake: FakeRegistry, open_repository: Opener) -> None:
        image = tiny_image()
        fake.manifests["app", str(Digest.of(b"other"))] = (image.manifest.media_type, image.manifest.raw)
        with pytest.raises(DigestMismatch):
            open_repository().fetch_manifest(str(Digest.of(b"other")))

    def test_other_bytes_than_the_digest_told(self, fake: FakeRegistry, open_repository: Opener) -> None:
        told = {"Docker-Content-Digest": str(Digest.of(b"other")), "Content-Type": media_types.OCI_MANIFEST}
        fake.on("GET .*/manifests/", answer(200, tiny_image().manifest.raw, told))
        with pytest.raises(DigestMismatch):
            open_repository().fetch_manifest("1")

    def test_endless_manifest_is_capped(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/manifests/", endless(media_types.OCI_MANIFEST))
        with pytest.raises(TierceError, match="larger than"):
            open_repository().fetch_manifest("1")

    @pytest.mark.parametrize(
        "raw",
        [
            pytest.param(b"[" * 1_000_000, id="deep"),
            pytest.param(b'{"schemaVersion":2,"schemaVersion":2}', id="duplicate-keys"),
            pytest.param(b"<html>", id="html"),
            pytest.param(b'{"schemaVersion":1}', id="schema-1"),
        ],
    )
    def test_broken_documents(self, fake: FakeRegistry, open_repository: Opener, raw: bytes) -> None:
        fake.on("GET .*/manifests/", answer(200, raw, {"Content-Type": media_types.OCI_MANIFEST}))
        with pytest.raises(InvalidManifest):
            open_repository().fetch_manifest("1")

    def test_head_without_a_digest_is_fetched(self, fake: FakeRegistry, open_repository: Opener) -> None:
        image = tiny_image()
        fake.add_manifest("app", "1", image.manifest)
        fake.on("HEAD .*/manifests/", answer(200))
        assert open_repository().head_manifest("1") == image.manifest.descriptor

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            pytest.param("MANIFEST_UNKNOWN", "image app:1 not found in registry", id="manifest-unknown"),
            pytest.param("NAME_UNKNOWN", "repository app not found in registry", id="name-unknown"),
            pytest.param("", "image app:1 not found in registry", id="no-code"),
        ],
    )
    def test_unknown(self, fake: FakeRegistry, open_repository: Opener, code: str, message: str) -> None:
        fake.on("GET .*/manifests/", refuse(404, code))
        with pytest.raises(ReferenceNotFound, match=message):
            open_repository().fetch_manifest("1")


class TestRefusals:
    def test_too_many_requests_waits_as_asked(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.add_manifest("app", "1", tiny_image().manifest)
        fake.on("GET .*/manifests/", refuse(429, "TOOMANYREQUESTS", headers={"Retry-After": "3"}))
        repository = open_repository()
        waited: list[float] = []
        repository.retry = type(repository.retry)(sleep=waited.append, jitter=lambda: 0)
        repository.fetch_manifest("1")
        assert waited == [3.0]

    def test_too_many_requests_forever(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/manifests/", refuse(429, "TOOMANYREQUESTS", "pull rate limit"), times=99)
        with pytest.raises(RegistryError, match=r"too many requests \(pull rate limit\)"):
            open_repository().fetch_manifest("1")
        assert len(fake.seen("GET .*/manifests/")) == 4

    def test_denied_is_final(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("POST .*/uploads/", refuse(403, "DENIED", "permission_denied: write_package"), times=9)
        with pytest.raises(RegistryError, match=r"access denied.*write_package"):
            open_repository(push=True).begin_upload()
        assert len(fake.seen("POST .*/uploads/")) == 1

    def test_unreachable(self, open_repository: Opener, fake: FakeRegistry) -> None:
        fake.host = f"127.0.0.1:{free_port()}"
        with pytest.raises(RegistryError, match="connection refused: is the registry running"):
            open_repository().fetch_manifest("1")

    def test_no_registry(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET /v2/$", answer(404))
        with pytest.raises(RegistryError):
            open_repository().fetch_manifest("1")

    def test_messages_hide_the_query(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/blobs/", redirect("/v2/app/blobs/elsewhere?X-Amz-Signature=secret"))
        fake.on("GET .*/blobs/elsewhere", refuse(403))
        with pytest.raises(RegistryError) as caught:
            read(open_repository())
        assert "secret" not in f"{caught.value} {caught.value.url}"


class TestTimeLimits:
    def test_silence(self, fake: FakeRegistry, open_repository: Opener) -> None:
        done = threading.Event()
        fake.on("GET .*/manifests/", silent_until(done), times=9)
        with pytest.raises(RegistryError, match="did not answer in time"):
            open_repository(timeouts=Timeouts(idle_s=0.1)).fetch_manifest("1")
        done.set()

    def test_slow_loris(self, fake: FakeRegistry, open_repository: Opener) -> None:
        """Each byte comes long before the idle limit; the whole never does."""
        fake.on("GET .*/manifests/", trickle(0.02), times=9)
        with pytest.raises(RegistryError, match="did not answer in time"):
            open_repository(timeouts=Timeouts(idle_s=10, total_s=0.3)).fetch_manifest("1")

    def test_abort_wakes_a_waiting_thread(self, fake: FakeRegistry, open_repository: Opener) -> None:
        done = threading.Event()
        fake.on("GET .*/manifests/", silent_until(done))
        repository = open_repository()
        failures: list[BaseException] = []

        def fetch() -> None:
            try:
                repository.fetch_manifest("1")
            except TierceError as error:
                failures.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        while not fake.seen("GET .*/manifests/"):
            time.sleep(0.005)
        repository.transport.abort()
        thread.join(timeout=20)
        done.set()
        assert [type(failure) for failure in failures] == [Cancelled]
        with pytest.raises(Cancelled):
            repository.fetch_manifest("1")


class TestForeignHosts:
    @pytest.fixture
    def other(self) -> Iterator[FakeRegistry]:
        with fake_registry() as registry:
            yield registry

    def test_redirect_carries_no_authorization(
        self, fake: FakeRegistry, other: FakeRegistry, open_repository: Opener
    ) -> None:
        fake.basic = ("bob", "hunter2")
        digest = other.add_blob(BLOB)
        fake.on("GET .*/blobs/", redirect(f"{other.url}/v2/app/blobs/{digest}?signed=yes"))
        assert read(open_repository(credential=BOB)) == BLOB
        assert fake.seen("GET .*/blobs/")[0].authorization
        assert [request.authorization for request in other.requests] == [""]

    def test_upload_location_gets_no_authorization(
        self, fake: FakeRegistry, other: FakeRegistry, open_repository: Opener
    ) -> None:
        fake.basic = ("bob", "hunter2")
        other.uploads["upload-0"] = b""
        fake.upload_location = lambda _base, path: f"{other.url}{path}"
        upload(open_repository(push=True, credential=BOB), BLOB)
        assert [request.authorization for request in other.requests] == [""]
        assert other.blobs == {str(DESCRIPTOR.digest): BLOB}

    def test_next_page_elsewhere_is_refused(
        self, fake: FakeRegistry, other: FakeRegistry, open_repository: Opener
    ) -> None:
        fake.on("GET .*/tags/list", answer(200, b'{"tags":["a"]}', {"Link": f'<{other.url}/v2/app/tags/list>; rel="next"'}))  # fmt: skip
        with pytest.raises(RegistryError, match="another host"):
            open_repository().tags()
        assert other.requests == []

    def test_redirect_loop_ends(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/blobs/", redirect(f"/v2/app/blobs/{DESCRIPTOR.digest}"), times=99)
        with pytest.raises(RegistryError, match="too many redirects"):
            read(open_repository())

    @pytest.mark.parametrize(
        ("base", "realm"),
        [
            pytest.param("https://r.example", "http://auth.example/token", id="http-realm"),
            pytest.param("https://r.example", "https://10.0.0.1/token", id="private-realm"),
            pytest.param("https://r.example", "https://169.254.169.254/token", id="metadata-service"),
            pytest.param("https://r.example", "file:///etc/passwd", id="file"),
            pytest.param("https://r.example", "", id="none"),
        ],
    )
    def test_realm_is_refused(self, base: str, realm: str) -> None:
        with pytest.raises(RegistryError):
            check_realm(base, realm)

    @pytest.mark.parametrize(
        ("base", "realm"),
        [
            pytest.param("https://r.example", "https://auth.example/token", id="public"),
            pytest.param("https://10.0.0.1", "https://10.0.0.1/token", id="same-private-host"),
            pytest.param("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", id="both-on-this-machine"),
        ],
    )
    def test_realm_is_accepted(self, base: str, realm: str) -> None:
        check_realm(base, realm)


class TestAuthentication:
    def test_basic(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.basic = ("bob", "hunter2")
        fake.add_blob(BLOB)
        assert read(open_repository(credential=BOB)) == BLOB

    @pytest.mark.parametrize("kind", ["basic", "token"])
    def test_wrong_password(self, fake: FakeRegistry, open_repository: Opener, kind: str) -> None:
        if kind == "basic":
            fake.basic = ("bob", "other")
        else:
            fake.tokens = TokenServer("bob", "other")
        with pytest.raises(RegistryError, match="as bob: wrong user name or password: run 'tierce login") as caught:
            open_repository(credential=BOB).fetch_manifest("1")
        assert "hunter2" not in repr(caught.value) + str(vars(caught.value))

    def test_anonymous_is_told_to_log_in(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.basic = ("bob", "hunter2")
        with pytest.raises(RegistryError, match="access denied: log in with 'tierce login"):
            open_repository().fetch_manifest("1")

    def test_token_asks_for_our_scope_not_the_ping_s(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        fake.add_manifest("app", "1", tiny_image().manifest)
        open_repository().fetch_manifest("1")
        assert fake.seen("/token")[0].query == {"service": ["fake"], "scope": ["repository:app:pull"]}

    def test_one_token_serves_many_threads(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        fake.add_manifest("app", "1", tiny_image().manifest)
        repository = open_repository()
        threads = [threading.Thread(target=repository.fetch_manifest, args=("1",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fake.seen("/token")) == 1
        assert len(fake.seen("GET .*/manifests/")) == 8

    @pytest.mark.parametrize(
        ("reply", "after_s", "fetched"),
        [
            pytest.param({}, 40, 1, id="no-expires_in-lives-a-minute"),
            pytest.param({}, 55, 2, id="no-expires_in-ends-after-a-minute"),
            pytest.param({"expires_in": 300}, 200, 1, id="within-expires_in"),
            pytest.param({"expires_in": 300}, 295, 2, id="renewed-before-it-ends"),
            pytest.param({"expires_in": 1}, 40, 1, id="floor"),
            pytest.param({"expires_in": "soon"}, 40, 1, id="nonsense"),
        ],
    )
    def test_token_life(
        self, fake: FakeRegistry, open_repository: Opener, reply: dict[str, object], after_s: float, fetched: int
    ) -> None:
        fake.tokens = TokenServer(reply=reply)
        fake.add_manifest("app", "1", tiny_image().manifest)
        now = [1000.0]
        repository = open_repository(clock=lambda: now[0])
        repository.fetch_manifest("1")
        now[0] += after_s
        repository.fetch_manifest("1")
        assert len(fake.seen("/token")) == fetched

    def test_token_that_the_registry_forgot_is_renewed(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        fake.add_manifest("app", "1", tiny_image().manifest)
        repository = open_repository()
        repository.fetch_manifest("1")
        fake.valid_tokens.clear()
        fake.valid_tokens["token-unlike-the-first"] = []
        repository.fetch_manifest("1")

    def test_insufficient_scope_is_asked_for_once(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        challenge = (
            f'Bearer realm="{fake.url}/token",service="fake",error="insufficient_scope",scope="registry:catalog:*"'
        )
        fake.on("GET .*/manifests/", refuse(401, headers={"WWW-Authenticate": challenge}), times=9)
        with pytest.raises(RegistryError):
            open_repository().fetch_manifest("1")
        assert [request.query["scope"] for request in fake.seen("/token")] == [
            ["repository:app:pull"],
            ["registry:catalog:*", "repository:app:pull"],
        ]

    @pytest.mark.parametrize("oauth", [True, False], ids=["oauth-form", "404-then-get"])
    def test_identity_token(self, fake: FakeRegistry, open_repository: Opener, oauth: bool) -> None:
        fake.tokens = TokenServer("<token>", "refresh", oauth=oauth, refresh_token="refresh")
        fake.add_manifest("app", "1", tiny_image().manifest)
        open_repository(credential=Credential(identity_token="refresh")).fetch_manifest("1")
        assert [request.method for request in fake.seen("/token")] == (["POST"] if oauth else ["POST", "GET"])

    @pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"token":""}', b'{"token":"a\\nb"}'])
    def test_token_replies_without_a_token(self, fake: FakeRegistry, open_repository: Opener, body: bytes) -> None:
        fake.tokens = TokenServer()
        fake.on("/token", answer(200, body))
        with pytest.raises(RegistryError, match="log in to registry"):
            open_repository().fetch_manifest("1")

    def test_mount_asks_for_both_scopes(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        fake.add_blob(BLOB)
        assert open_repository(push=True).begin_upload(mount=DESCRIPTOR.digest, source="base") is None
        assert fake.seen("/token")[0].query["scope"] == ["repository:app:pull,push", "repository:base:pull"]


class TestUploads:
    @pytest.mark.parametrize(
        "location",
        [
            pytest.param(lambda _base, path: path, id="relative"),
            pytest.param(lambda base, path: base + path, id="absolute"),
            pytest.param(lambda base, path: f"{base}{path}?_state=a%2Bb%3D&x=1", id="with-query"),
        ],
    )
    def test_locations(self, fake: FakeRegistry, open_repository: Opener, location: object) -> None:
        fake.upload_location = location  # type: ignore[assignment]
        upload(open_repository(push=True), BLOB)
        assert fake.blobs[str(DESCRIPTOR.digest)] == BLOB
        put = fake.seen("PUT .*/uploads/")[0]
        assert put.query["digest"] == [str(DESCRIPTOR.digest)]
        assert put.query.get("_state", ["a+b="]) == ["a+b="]

    @pytest.mark.parametrize(
        "action",
        [
            pytest.param(None, id="202"),
            pytest.param(refuse(401, "UNAUTHORIZED"), id="401"),
            pytest.param(refuse(404, "NAME_UNKNOWN"), id="404"),
            pytest.param(refuse(500), id="500"),
        ],
    )
    def test_mount_falls_back_to_an_upload(self, fake: FakeRegistry, open_repository: Opener, action: object) -> None:
        fake.mounts = False
        if action is not None:
            fake.on("POST .*/uploads/", action)  # type: ignore[arg-type]
        repository = open_repository(push=True)
        opened = repository.begin_upload(mount=DESCRIPTOR.digest, source="base")
        assert opened is not None
        repository.upload(DESCRIPTOR, iter([BLOB]), opened)
        assert fake.blobs[str(DESCRIPTOR.digest)] == BLOB

    def test_stream_of_unknown_digest(self, fake: FakeRegistry, open_repository: Opener) -> None:
        repository = open_repository(push=True)
        opened = repository.begin_upload()
        assert opened is not None
        repository.upload_stream(iter([BLOB[:1000], b"", BLOB[1000:]]), opened, lambda: DESCRIPTOR.digest)
        assert fake.blobs[str(DESCRIPTOR.digest)] == BLOB

    def test_refused_before_the_body_is_through(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("PUT .*/uploads/", refuse(413, "SIZE_INVALID", "too big"))
        with pytest.raises(RegistryError, match="413: too big"):
            upload(open_repository(push=True), BLOB)

    def test_token_that_ends_during_an_upload_is_temporary(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.tokens = TokenServer()
        repository = open_repository(push=True)
        opened = repository.begin_upload()
        assert opened is not None
        fake.valid_tokens.clear()
        fake.valid_tokens["token-unlike-the-first"] = []
        with pytest.raises(RegistryError) as caught:
            repository.upload(DESCRIPTOR, iter([BLOB]), opened)
        assert caught.value.temporary
        upload(repository, BLOB)

    def test_failed_upload_is_cancelled(self, fake: FakeRegistry, open_repository: Opener) -> None:
        def broken() -> Iterator[bytes]:
            yield BLOB[:1000]
            raise DigestMismatch("a", "b")

        repository = open_repository(push=True)
        opened = repository.begin_upload()
        assert opened is not None
        with pytest.raises(DigestMismatch):
            repository.upload(DESCRIPTOR, broken(), opened)
        assert fake.uploads == {}
        assert fake.blobs == {}


class TestTags:
    def test_none(self, fake: FakeRegistry, open_repository: Opener) -> None:
        assert open_repository().tags() == []

    def test_pages_are_followed(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/tags/list", answer(200, b'{"tags":["a","b"]}', {"Link": '</v2/app/tags/list?last=b>; rel="next"'}))  # fmt: skip
        fake.on("GET .*/tags/list", answer(200, b'{"tags":["c"]}'))
        assert open_repository().tags() == ["a", "b", "c"]

    def test_loop_ends(self, fake: FakeRegistry, open_repository: Opener) -> None:
        fake.on("GET .*/tags/list", answer(200, b'{"tags":["a"]}', {"Link": '</v2/app/tags/list?x=1>; rel="next"'}), times=99)  # fmt: skip
        with pytest.raises(RegistryError, match="never end"):
            open_repository().tags()


def test_connections_are_kept(fake: FakeRegistry) -> None:
    transport = Transport({})
    for _ in range(5):
        with transport.send(Request("GET", f"{fake.url}/v2/")) as reply:
            assert reply.read(100) == b"{}"
    assert [len(pool) for pool in transport._idle.values()] == [1]
    transport.close()


def test_connection_that_the_server_closed_meanwhile_is_replaced(fake: FakeRegistry) -> None:
    def answer_and_close(handler: Handler) -> None:
        handler.reply(200)
        handler.hang_up()

    transport = Transport({})
    fake.on("GET /v2/$", answer_and_close)
    for _ in range(2):
        with transport.send(Request("GET", f"{fake.url}/v2/")) as reply:
            assert reply.status == 200
    transport.close()
