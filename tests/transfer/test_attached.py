"""What refers to an image goes along with it, and a verified copy has everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.registries import PLAIN, Emulator, emulate
from image import media_types
from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import BlobNotFound, DigestMismatch, InvalidInput, InvalidManifest, SizeMismatch
from image.manifest import Index, Manifest
from image.reference import Reference
from tests.support.fake_registry import FakeRegistry, Handler, refuse
from tests.support.tiny_image import ARM64, TinyImage, tiny_image, tiny_index
from tests.support.transfers import OPTIONS, Opener
from transfer.attached import Attachment, Wish, copy_whole, find, verify_attached
from transfer.conversion import Conversion
from transfer.copy import Copied, copy
from transfer.registries import Registries
from transfer.transports.directory import DirectorySink, DirectorySource
from transfer.transports.registry import RegistrySink, RegistrySource
from transfer.verify import Verified, verify

IMAGES = (tiny_image({"a": b"64"}), tiny_image({"b": b"64"}, platform=ARM64))
INDEX = tiny_index(IMAGES)
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"

Copier = Callable[..., tuple[Copied, tuple[Attachment, ...]]]


def artifact(
    content: bytes, subject: Descriptor | None = None, kind: str = "application/x.sbom", **annotations: str
) -> TinyImage:
    """A manifest with one blob, about ``subject``."""
    manifest = Manifest.build(
        Descriptor.of(b"{}", media_types.OCI_EMPTY),
        [Descriptor.of(content, "application/octet-stream")],
        subject=subject,
        artifact_type=kind,
        annotations={name.replace("_", "."): value for name, value in annotations.items()},
    )
    return TinyImage(manifest, {str(Digest.of(data)): data for data in (b"{}", content)})


SBOM = artifact(b"sbom", IMAGES[0].manifest.descriptor)
SIGNATURE_OF_SBOM = artifact(b"signed", SBOM.manifest.descriptor, "application/vnd.cncf.notary.signature")
OF_INDEX = artifact(
    b"index", INDEX.descriptor, BUNDLE, dev_sigstore_bundle_predicateType="https://slsa.dev/provenance/v1"
)
COSIGN = artifact(b"classic", kind="")
COSIGN_TAG = f"sha256-{IMAGES[1].manifest.digest.encoded}.sig"
ALL = {entry.manifest.digest for entry in (SBOM, SIGNATURE_OF_SBOM, OF_INDEX, COSIGN)}


def reference(host: str, name: str) -> Reference:
    return Reference.parse(f"{host}/{name}")


@pytest.fixture
def signed(registries: Registries) -> Iterator[Emulator]:
    """A registry with the referrers API that has an index with all kinds of things attached."""
    with emulate(PLAIN) as registry:
        for image in IMAGES:
            put(registry, image, str(image.manifest.digest))
        registry.add_manifest("app", "1", INDEX.media_type, INDEX.raw)
        for entry in (SBOM, SIGNATURE_OF_SBOM, OF_INDEX):
            put(registry, entry, str(entry.manifest.digest))
        put(registry, COSIGN, COSIGN_TAG)
        yield registry


def put(registry: Emulator, image: TinyImage, name: str, repository: str = "app") -> None:
    registry.add_image(repository, name, image.manifest.media_type, image.manifest.raw, image.blobs)


@pytest.fixture
def run(signed: Emulator, registries: Registries) -> Copier:
    def run(host: str, wish: Wish = Wish(), **changes: object) -> tuple[Copied, tuple[Attachment, ...]]:
        source = RegistrySource(reference(signed.host, "app:1"), registries)
        sink = RegistrySink(reference(host, "new:1"), registries)
        with source, sink:
            return copy_whole(source, sink, replace(OPTIONS, **changes), wish)  # type: ignore[arg-type]

    return run


class TestReferrers:
    def test_found_from_every_manifest_on(self, signed: Emulator, registries: Registries) -> None:
        source = RegistrySource(reference(signed.host, "app:1"), registries)
        found = find(source, [INDEX.digest, *(image.manifest.digest for image in IMAGES)])
        assert {entry.target.digest for entry in found} == ALL
        assert [entry.tag for entry in found if entry.tag] == [COSIGN_TAG]

    def test_to_a_registry_with_the_api(self, run: Copier, registries: Registries) -> None:
        with emulate(PLAIN) as other:
            _, attached = run(other.host)
            assert len(attached) == 4
            place = RegistrySource(reference(other.host, "new:1"), registries)
            assert {entry.digest for entry in place.referrers(IMAGES[0].manifest.digest)} == {SBOM.manifest.digest}
            assert verify_attached(place, attached).manifests == 4

    def test_to_a_registry_without(self, run: Copier, fake: FakeRegistry, registries: Registries) -> None:
        """It has the tag instead, with each referrer's kind and annotations."""
        _, attached = run(fake.host)
        _, raw = fake.manifests["new", f"sha256-{INDEX.digest.encoded}"]
        [entry] = json.loads(raw)["manifests"]
        assert (entry["digest"], entry["artifactType"]) == (str(OF_INDEX.manifest.digest), BUNDLE)
        assert entry["annotations"] == dict(OF_INDEX.manifest.annotations)
        place = RegistrySource(reference(fake.host, "new:1"), registries)
        assert verify_attached(place, attached).manifests == 4
        assert fake.manifests["new", COSIGN_TAG][1] == COSIGN.manifest.raw

    def test_again_sends_nothing(self, run: Copier, fake: FakeRegistry) -> None:
        run(fake.host)
        before = len(fake.seen("^(POST|PUT|PATCH) "))
        run(fake.host)
        assert len(fake.seen("^(POST|PUT|PATCH) ")) == before

    def test_referrer_that_nobody_lists_is_listed_by_the_next_copy(self, run: Copier, fake: FakeRegistry) -> None:
        run(fake.host)
        tag = "new", f"sha256-{INDEX.digest.encoded}"
        whole = fake.manifests.pop(tag)
        run(fake.host)
        assert fake.manifests[tag] == whole

    def test_not_wanted(self, run: Copier, fake: FakeRegistry) -> None:
        _, attached = run(fake.host, Wish(referrers=False))
        assert attached == ()
        assert ("new", COSIGN_TAG) not in fake.manifests

    def test_signatures_left_behind(self, run: Copier, fake: FakeRegistry) -> None:
        """A bundle of cosign is one only if it says so: this one is a provenance."""
        _, attached = run(fake.host, Wish(signatures=False))
        assert {entry.target.digest for entry in attached} == {SBOM.manifest.digest, OF_INDEX.manifest.digest}

    def test_conversion_would_leave_them_behind(self, run: Copier, fake: FakeRegistry) -> None:
        with pytest.raises(
            InvalidInput, match="would change: 4 signatures or other artifacts refer to it, which --no-r"
        ):
            run(fake.host, conversion=Conversion("v2s2"))
        assert fake.seen("^(POST|PUT|PATCH) ") == []
        copied, attached = run(fake.host, Wish(referrers=False), conversion=Conversion("v2s2"))
        assert (copied.changed, attached) == (True, ())

    def test_of_one_platform(self, run: Copier, fake: FakeRegistry) -> None:
        _, attached = run(fake.host, platform=IMAGES[1].platform)
        assert [entry.tag for entry in attached] == [COSIGN_TAG]

    def test_chain_without_an_end(self, fake: FakeRegistry, registries: Registries) -> None:
        link = artifact(b"0")
        first = link.manifest.digest
        for number in range(8):
            link = artifact(str(number).encode(), link.manifest.descriptor)
            subject = link.manifest.subject
            assert subject is not None
            fake.add_manifest("app", str(number), link.manifest)
            fake.add_manifest("app", f"sha256-{subject.digest.encoded}", Index.build([link.manifest.descriptor]))
        with pytest.raises(InvalidManifest, match="nested deeper than 4"):
            find(RegistrySource(reference(fake.host, "app:0"), registries), [first])

    def test_list_that_others_change_meanwhile_loses_nothing(self, fake: FakeRegistry, open_repository: Opener) -> None:
        """Another client's list takes the place of ours just after we wrote it."""
        tag = f"sha256-{IMAGES[0].manifest.digest.encoded}"
        theirs = Index.build([COSIGN.manifest.descriptor])

        def lose(handler: Handler) -> None:
            fake.add_manifest("app", tag, theirs)
            handler.reply(201)

        fake.on("PUT .*/manifests/" + tag, lose)
        open_repository(push=True).put_manifest(str(SBOM.manifest.digest), SBOM.manifest)
        listed = open_repository().referrers(IMAGES[0].manifest.digest)
        assert {entry.digest for entry in listed} == {COSIGN.manifest.digest, SBOM.manifest.digest}

    @pytest.mark.parametrize("status", [400, 404, 405])
    def test_registry_that_does_not_know_the_call(
        self, fake: FakeRegistry, open_repository: Opener, status: int
    ) -> None:
        fake.on("GET .*/referrers/", refuse(status, "UNSUPPORTED"))
        repository = open_repository()
        for _ in range(2):
            assert repository.referrers(INDEX.digest) == ()
        assert len(fake.seen("GET .*/referrers/")) == 1


class TestVerify:
    def serve(self, fake: FakeRegistry) -> None:
        for image in IMAGES:
            fake.blobs.update(image.blobs)
            fake.add_manifest("app", str(image.manifest.digest), image.manifest)
        fake.add_manifest("app", "1", INDEX)

    def test_whole(self, fake: FakeRegistry, registries: Registries) -> None:
        self.serve(fake)
        found = verify(RegistrySource(reference(fake.host, "app:1"), registries), INDEX.digest)
        blobs = {digest: data for image in IMAGES for digest, data in image.blobs.items()}
        assert found == Verified(3, len(blobs), sum(map(len, blobs.values())))
        assert fake.seen("GET .*/blobs/") == []

    def test_another_image_under_the_name(self, fake: FakeRegistry, registries: Registries) -> None:
        self.serve(fake)
        with pytest.raises(DigestMismatch, match=r"verify docker://.*/app:1: the image there has digest"):
            verify(RegistrySource(reference(fake.host, "app:1"), registries), IMAGES[0].manifest.digest)

    @pytest.mark.parametrize("kept", [0, 3])
    def test_blob_that_is_missing_or_short(self, fake: FakeRegistry, registries: Registries, kept: int) -> None:
        self.serve(fake)
        digest = str(IMAGES[1].manifest.layers[0].digest)
        data = fake.blobs.pop(digest)
        if kept:
            fake.blobs[digest] = data[:kept]
        with pytest.raises(SizeMismatch if kept else BlobNotFound, match=digest):
            verify(RegistrySource(reference(fake.host, "app:1"), registries), INDEX.digest)

    def test_child_that_is_missing(self, fake: FakeRegistry, registries: Registries) -> None:
        self.serve(fake)
        del fake.manifests["app", str(IMAGES[1].manifest.digest)]
        with pytest.raises(Exception, match="not found"):
            verify(RegistrySource(reference(fake.host, "app:1"), registries), INDEX.digest)

    def test_files_are_read(self, fake: FakeRegistry, registries: Registries, tmp_path: Path) -> None:
        self.serve(fake)
        source, sink = RegistrySource(reference(fake.host, "app:1"), registries), DirectorySink(tmp_path / "x")
        with source, sink:
            copy(source, sink, OPTIONS)
        assert verify(DirectorySource(tmp_path / "x"), INDEX.digest).manifests == 3
        layer = tmp_path / "x" / IMAGES[0].manifest.layers[0].digest.encoded
        layer.write_bytes(layer.read_bytes()[:-1] + b"X")
        with pytest.raises(DigestMismatch):
            verify(DirectorySource(tmp_path / "x"), INDEX.digest)

    def test_referrer_that_is_not_listed(self, fake: FakeRegistry, registries: Registries) -> None:
        self.serve(fake)
        place = RegistrySource(reference(fake.host, "app:1"), registries)
        with pytest.raises(InvalidManifest, match="does not list that"):
            verify_attached(place, [Attachment(INDEX.digest, OF_INDEX.manifest.descriptor)])
