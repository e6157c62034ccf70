"""What works everywhere, against each registry of the table under its real name, through a proxy and TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.registries import DOCKER_HUB, ECR, ECR_PUBLIC, GHCR, QUAY, Behaviour, Emulator
from fixtures.registries.faults import after, dropped, refused
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import RegistryError, SizeMismatch, TierceError
from image.manifest import Index, Manifest
from tests.support.registry_lab import PATH, Lab, add, push, read, upload
from tests.support.tiny_image import tiny_image, tiny_index
from transfer.registry.credential import ANONYMOUS, Credential

BLOB = bytes(range(256)) * 41_500  # 10.6 MB: three chunks at every registry
DESCRIPTOR = Descriptor.of(BLOB, "application/octet-stream")


def blocks(data: bytes = BLOB) -> list[bytes]:
    """As streams bring them: not of a chunk's size."""
    return [data[first : first + 700_001] for first in range(0, len(data), 700_001)]


def test_push_and_pull(each: Emulator, lab: Lab) -> None:
    image = tiny_image({"a": b"1" * 10_000}, {"b": b"2"})
    repository = lab.open(each)
    push(repository, image, "1")
    descriptor, manifest = lab.open(each, push=False).fetch_manifest("1")
    assert isinstance(manifest, Manifest)
    assert (descriptor.digest, manifest.raw) == (image.manifest.digest, image.manifest.raw)
    for blob in manifest.children:
        assert read(repository, blob) == image.blobs[str(blob.digest)]


def test_without_a_login(each: Emulator, lab: Lab) -> None:
    """Pulling works where strangers may; a push, or a pull elsewhere, says where to log in."""
    image = tiny_image()
    add(each, image)
    stranger = lab.open(each, credential=ANONYMOUS)
    if each.behaviour.anonymous_pulls:
        _, manifest = lab.open(each, credential=ANONYMOUS, push=False).fetch_manifest("1")
        assert isinstance(manifest, Manifest)
        assert read(stranger, manifest.config) == image.blobs[str(manifest.config.digest)]
    else:
        with pytest.raises(RegistryError, match=f"access denied: log in with 'tierce login {each.behaviour.host}'"):
            stranger.fetch_manifest("1")
    if each.behaviour.auth != "none":
        with pytest.raises(RegistryError, match=r"push to .*(tierce login|write:packages)"):
            stranger.begin_upload()


@pytest.mark.parametrize("behaviour", [DOCKER_HUB, GHCR, QUAY, ECR, ECR_PUBLIC], ids=lambda behaviour: behaviour.name)
def test_wrong_password(lab: Lab, behaviour: Behaviour) -> None:
    each = lab.run(behaviour)
    add(each, tiny_image())
    with pytest.raises(RegistryError, match=r"log in to registry .* as bob: wrong user name or password") as caught:
        lab.open(each, credential=Credential("bob", "guessed")).fetch_manifest("1")
    assert "guessed" not in str(vars(caught.value))


def test_no_secret_goes_elsewhere(each: Emulator, lab: Lab) -> None:
    """Where blobs are kept admits no login beside its own links, and the emulator refuses one."""
    image = tiny_image()
    add(each, image)
    repository = lab.open(each)
    _, manifest = repository.fetch_manifest("1")
    for blob in manifest.children:
        read(repository, blob)
    assert all(not request.authorization for request in each.seen("/store/"))
    if each.behaviour.blob_host:
        assert {request.host for request in each.seen("/store/")} == {each.behaviour.blob_host}


def test_stream(each: Emulator, lab: Lab) -> None:
    repository = lab.open(each)
    opened = repository.begin_upload()
    assert opened is not None
    repository.upload_stream(iter(blocks()), opened, lambda: DESCRIPTOR.digest)
    assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB


def test_chunks(each: Emulator, lab: Lab) -> None:
    repository = lab.open(each)
    opened = repository.begin_upload()
    assert opened is not None
    repository.upload_chunks(iter(blocks()), opened, lambda: DESCRIPTOR.digest)
    assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB
    assert len(each.seen("PATCH|PUT")) >= 3


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["dropped", "failed"])
def test_a_chunk_that_breaks_is_sent_again(each: Emulator, lab: Lab, number: int, name: str) -> None:
    """The registry is asked how far it came; whatever it counts, the digest is right in the end."""
    repository = lab.open(each)
    opened = repository.begin_upload()
    assert opened is not None
    fault = dropped() if name == "dropped" else refused(500)
    for _ in range(number - 1):
        each.on("PATCH", after(lambda: None))
    each.on("PATCH", fault, times=2)
    repository.upload_chunks(iter(blocks()), opened, lambda: DESCRIPTOR.digest)
    assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB
    assert each.seen("GET .*/uploads/")


def test_sha512(each: Emulator, lab: Lab) -> None:
    repository = lab.open(each)
    blob = upload(repository, b"long digests", algorithm="sha512")
    assert read(repository, blob) == b"long digests"


@pytest.mark.parametrize("source", ["me/base", "elsewhere/base"])
def test_mount_or_upload(each: Emulator, lab: Lab, source: str) -> None:
    """Done, ignored or refused: the blob is there in the end."""
    digest = Digest(each.add_blob("me/base", b"shared"))
    each.tokens.denied.add((f"repository:{source}", "pull") if source != "me/base" else ("", ""))
    repository = lab.open(each)
    opened = repository.begin_upload(mount=digest, source=source)
    if opened is not None:
        repository.upload(Descriptor("x", digest, 6), iter([b"shared"]), opened)
    assert each.storage.blob(PATH, str(digest)) == b"shared"
    assert (opened is None) is (source == "me/base" and each.behaviour.mount != "ignored")


def test_has_blob(each: Emulator, lab: Lab) -> None:
    there = Digest(each.add_blob(PATH, b"there"))
    repository = lab.open(each)
    assert repository.has_blob(there)
    repository.check_blob(Descriptor.of(b"there", "x"))
    with pytest.raises(SizeMismatch):
        repository.check_blob(Descriptor("x", there, 6))
    assert not repository.has_blob(Digest.of(b"not there"))


def test_index_children_first(each: Emulator, lab: Lab) -> None:
    image = tiny_image()
    repository = lab.open(each)
    index = tiny_index([image])
    with pytest.raises(TierceError):
        repository.put_manifest("all", index)
    push(repository, image, str(image.manifest.digest))
    repository.put_manifest("all", index)
    assert isinstance(repository.fetch_manifest("all")[1], Index)


def test_tags(each: Emulator, lab: Lab) -> None:
    image = tiny_image()
    for number in range(2500):
        each.storage.repositories[PATH].tags[f"v{number:04}"] = str(image.manifest.digest)
    repository = lab.open(each, push=False)
    if each.behaviour.tags == "missing":
        with pytest.raises(RegistryError, match="Amazon's public registry does not list tags"):
            repository.tags()
    else:
        assert repository.tags() == [f"v{number:04}" for number in range(2500)]


def test_repositories(each: Emulator, lab: Lab) -> None:
    for number in range(1500):
        each.storage.create(f"many/r{number:04}")
    repository = lab.open(each)
    if each.behaviour.catalog in {"link", "next_page"}:
        assert repository.catalog() == [f"many/r{number:04}" for number in range(1500)] + [PATH]
    else:
        with pytest.raises(RegistryError, match=r"list repositories of .*(does not list|own API)"):
            repository.catalog()


def test_delete(each: Emulator, lab: Lab) -> None:
    digest = add(each, tiny_image())
    repository = lab.open(each)
    if each.behaviour.deletes == "not-allowed":
        with pytest.raises(RegistryError, match=r"delete from .*(alone|own API)"):
            repository.delete_tag("1")
        return
    repository.delete_tag("1")
    assert each.storage.tags(PATH) == []
    assert each.storage.manifest(PATH, digest)
    repository.delete_manifest(Digest(digest))
    assert each.storage.manifest(PATH, digest) is None


def test_referrers(each: Emulator, lab: Lab) -> None:
    """By the API, or under the tag: who pushes with a subject is found by it, and gone after a delete."""
    image = tiny_image()
    add(each, image)
    repository = lab.open(each)
    config = upload(repository, b"{}")
    pushed = [
        Manifest.build(config, [], subject=image.manifest.descriptor, artifact_type=f"example/{kind}", annotations={"k": kind})
        for kind in ("sbom", "signature")
    ]  # fmt: skip
    for artifact in pushed:
        repository.put_manifest(str(artifact.digest), artifact)
    found = lab.open(each, push=False).referrers(image.manifest.digest)
    assert {(entry.digest, entry.artifact_type, entry.annotations["k"]) for entry in found} == {
        (artifact.digest, artifact.artifact_type, artifact.annotations["k"]) for artifact in pushed
    }
    only = repository.referrers(image.manifest.digest, "example/sbom")
    assert [entry.digest for entry in only] == [pushed[0].digest]
    if each.behaviour.deletes != "not-allowed":
        repository.delete_manifest(pushed[0].digest)
        assert [entry.digest for entry in repository.referrers(image.manifest.digest)] == [pushed[1].digest]


def test_no_referrers(each: Emulator, lab: Lab) -> None:
    assert lab.open(each, push=False).referrers(Digest.of(b"nobody")) == ()


@pytest.mark.parametrize("behaviour", [DOCKER_HUB, GHCR, QUAY, ECR_PUBLIC], ids=lambda behaviour: behaviour.name)
def test_token_that_ends_in_the_middle_of_an_upload(lab: Lab, behaviour: Behaviour) -> None:
    """Each chunk asks anew; a token that the registry takes no longer is replaced."""
    each = lab.run(behaviour)
    repository = lab.open(each)
    opened = repository.begin_upload()
    assert opened is not None

    def ending() -> Iterator[bytes]:
        for number, block in enumerate(blocks()):
            if number in {7, 14}:
                each.tokens.expire()
            yield block

    repository.upload_chunks(ending(), opened, lambda: DESCRIPTOR.digest)
    assert each.storage.blob(PATH, str(DESCRIPTOR.digest)) == BLOB


@pytest.mark.parametrize("behaviour", [ECR, ECR_PUBLIC, GHCR], ids=lambda behaviour: behaviour.name)
def test_a_large_upload_in_one_request(lab: Lab, behaviour: Behaviour) -> None:
    """What chunks can't do at these, one request does."""
    registry = lab.run(behaviour)
    assert upload(lab.open(registry), BLOB) == DESCRIPTOR
