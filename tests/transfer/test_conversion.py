"""A copy that changes an image changes what was asked for and nothing else, or fails before anything is sent."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from image import media_types
from image.config import ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID, Digest
from image.errors import DigestMismatch, InvalidInput
from image.manifest import Index, Manifest, decode_manifest
from image.platform import Platform
from store.store import Store
from tests.support.fake_registry import FakeRegistry
from tests.support.tiny_image import AMD64, ARM64, TinyImage, add_to_store, layer_tar, tiny_image, tiny_index
from tests.support.transfers import OPTIONS
from transfer.conversion import Conversion
from transfer.copy import Copied, copy
from transfer.registries import Registries
from transfer.transports.address import Places, open_sink, open_source

IMAGE = tiny_image({"a/b.txt": b"hello" * 1000}, {"c": b"x"})
DOCKER_IMAGE = tiny_image({"a": b"1"}, {"b": b"2"}, docker_types=True)
PLAIN = tiny_image({"plain": b"1" * 4000}, compress=False)
S390X = Platform("linux", "s390x")

Run = Callable[..., Copied]


@pytest.fixture
def run(store: Store, registries: Registries) -> Run:
    places = Places(lambda: store, registries)

    def run(source: str, sink: str, *, more_names: tuple[str, ...] = (), **changes: object) -> Copied:
        with ExitStack() as stack:
            opened = stack.enter_context(open_source(source, places))
            place = stack.enter_context(open_sink(sink, places, more_names=more_names))
            return copy(opened, place, replace(OPTIONS, **changes))  # type: ignore[arg-type]  # fields of CopyOptions

    return run


def serve(fake: FakeRegistry, *images: TinyImage, name: str = "app:1") -> str:
    """The images as one, or as an index, under a name."""
    repository, _, tag = name.partition(":")
    for image in images:
        fake.blobs.update(image.blobs)
        fake.add_manifest(repository, str(image.manifest.digest), image.manifest)
    fake.add_manifest(repository, tag, images[0].manifest if len(images) == 1 else tiny_index(images))
    return f"docker://{fake.host}/{name}"


def at(fake: FakeRegistry, name: str) -> Manifest | Index:
    repository, _, reference = name.partition(":")
    media_type, raw = fake.manifests[repository, reference]
    return decode_manifest(raw, media_type)


def writes(fake: FakeRegistry) -> list[str]:
    return [f"{request.method} {request.path}" for request in fake.seen("^(POST|PUT|PATCH) ")]


def zstd_image() -> TinyImage:
    tar = layer_tar({"z": b"z"})
    config = ImageConfig(AMD64, diff_ids=(DiffID.of(tar),)).encode()
    packed = zstandard.ZstdCompressor().compress(tar)
    layer = Descriptor.of(packed, media_types.OCI_LAYER_ZSTD)
    manifest = Manifest.build(Descriptor.of(config, media_types.OCI_CONFIG), [layer])
    return TinyImage(manifest, {str(Digest.of(data)): data for data in (config, packed)})


def attestation(subject: TinyImage) -> TinyImage:
    """What BuildKit puts beside an image."""
    config, statement = b'{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers"}}', b'{"_type":"x"}'
    manifest = Manifest.build(
        Descriptor.of(config, media_types.OCI_CONFIG), [Descriptor.of(statement, "application/vnd.in-toto+json")]
    )
    blobs = {str(Digest.of(data)): data for data in (config, statement)}
    return TinyImage(manifest, blobs, Platform("unknown", "unknown"))


def attested_index(image: TinyImage, *others: TinyImage) -> tuple[Index, TinyImage]:
    about = attestation(image)
    told = about.descriptor.with_annotations({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": str(image.manifest.digest),
    })  # fmt: skip
    return Index.build([image.descriptor, *(other.descriptor for other in others), told]), about


class TestForm:
    def test_docker_to_oci_and_back_is_the_same(self, fake: FakeRegistry, run: Run) -> None:
        source = serve(fake, DOCKER_IMAGE)
        oci = run(source, f"docker://{fake.host}/app:oci", conversion=Conversion("oci"))
        made = at(fake, "app:oci")
        assert isinstance(made, Manifest)
        assert oci.changed
        assert oci.chosen.digest == DOCKER_IMAGE.manifest.digest
        assert made.media_type == media_types.OCI_MANIFEST
        assert made.config.media_type == media_types.OCI_CONFIG
        assert {layer.media_type for layer in made.layers} == {media_types.OCI_LAYER_GZIP}
        assert [blob.digest for blob in made.children] == [blob.digest for blob in DOCKER_IMAGE.manifest.children]
        back = run(f"docker://{fake.host}/app:oci", f"docker://{fake.host}/app:back", conversion=Conversion("v2s2"))
        assert back.descriptor == DOCKER_IMAGE.manifest.descriptor

    def test_what_has_the_form_already_is_untouched(self, fake: FakeRegistry, run: Run) -> None:
        copied = run(serve(fake, IMAGE), f"docker://{fake.host}/app:2", conversion=Conversion("oci"))
        assert not copied.changed
        assert copied.descriptor.digest == IMAGE.manifest.digest

    def test_index_becomes_a_list_of_what_its_images_became(self, fake: FakeRegistry, run: Run) -> None:
        images = tiny_image({"a": b"64"}), tiny_image({"b": b"64"}, platform=ARM64)
        run(serve(fake, *images), f"docker://{fake.host}/new:1", conversion=Conversion("v2s2"))
        made = at(fake, "new:1")
        assert isinstance(made, Index)
        assert made.media_type == media_types.DOCKER_LIST
        assert [child.platform for child in made.manifests] == [AMD64, ARM64]
        for child, image in zip(made.manifests, images, strict=True):
            there = at(fake, f"new:{child.digest}")
            assert there.media_type == child.media_type == media_types.DOCKER_MANIFEST
            assert len(there.raw) == child.size
            assert there.children[0].digest == image.manifest.config.digest

    def test_attestations_follow_their_image(self, fake: FakeRegistry, run: Run) -> None:
        index, about = attested_index(DOCKER_IMAGE)
        for part in (DOCKER_IMAGE, about):
            serve(fake, part)
        fake.add_manifest("app", "all", index)
        run(f"docker://{fake.host}/app:all", f"docker://{fake.host}/new:1", conversion=Conversion("oci"))
        made = at(fake, "new:1")
        assert isinstance(made, Index)
        image, told = made.manifests
        assert image.digest != DOCKER_IMAGE.manifest.digest
        assert told.digest == about.manifest.digest
        assert told.annotations["vnd.docker.reference.digest"] == str(image.digest)

    def test_docker_s_form_has_no_attestations(self, fake: FakeRegistry, run: Run) -> None:
        index, about = attested_index(IMAGE)
        for image in (IMAGE, about):
            serve(fake, image)
        fake.add_manifest("app", "all", index)
        with pytest.raises(InvalidInput, match=r"is an artifact \(application/vnd.in-toto\+json\).*--format v2s2"):
            run(f"docker://{fake.host}/app:all", f"docker://{fake.host}/new:1", conversion=Conversion("v2s2"))
        assert writes(fake) == []

    def test_docker_s_form_has_no_zstd(self, fake: FakeRegistry, run: Run) -> None:
        with pytest.raises(InvalidInput, match="has zstd layers, which Docker's form can't hold"):
            run(serve(fake, zstd_image()), f"docker://{fake.host}/new:1", conversion=Conversion("v2s2"))
        assert writes(fake) == []
        run(serve(fake, zstd_image()), f"docker://{fake.host}/new:1", conversion=Conversion.of("v2s2", "gzip"))
        assert at(fake, "new:1").children[1].media_type == media_types.DOCKER_LAYER_GZIP

    def test_zstd_can_not_be_asked_of_docker_s_form(self) -> None:
        with pytest.raises(InvalidInput, match="zstd layers need --format oci"):
            Conversion.of("v2s2", "zstd")


class TestCompression:
    def test_zstd_makes_it_oci_and_keeps_every_file(self, fake: FakeRegistry, run: Run) -> None:
        run(serve(fake, DOCKER_IMAGE), f"docker://{fake.host}/new:1", conversion=Conversion.of(None, "zstd"))
        made = at(fake, "new:1")
        assert isinstance(made, Manifest)
        assert made.media_type == media_types.OCI_MANIFEST
        assert {layer.media_type for layer in made.layers} == {media_types.OCI_LAYER_ZSTD}
        assert made.config.digest == DOCKER_IMAGE.manifest.config.digest
        for layer, before in zip(made.layers, DOCKER_IMAGE.manifest.layers, strict=True):
            data = fake.blobs[str(layer.digest)]
            assert len(data) == layer.size
            tar = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            assert tar == gzip.decompress(DOCKER_IMAGE.blobs[str(before.digest)])

    def test_level(self, fake: FakeRegistry, run: Run) -> None:
        sizes = []
        for level in (1, 19):
            run(serve(fake, IMAGE), f"docker://{fake.host}/new:1", conversion=Conversion.of(None, "zstd", level))
            sizes.append(at(fake, "new:1").children[1].size)
        assert sizes[1] < sizes[0]

    def test_docker_s_manifest_stays_one_when_its_layers_are_packed(self, fake: FakeRegistry, run: Run) -> None:
        tar = layer_tar({"plain": b"1"})
        config = ImageConfig(AMD64, diff_ids=(DiffID.of(tar),)).encode()
        manifest = Manifest.build(
            Descriptor.of(config, media_types.DOCKER_CONFIG),
            [Descriptor.of(tar, media_types.DOCKER_LAYER)],
            media_type=media_types.DOCKER_MANIFEST,
        )
        source = serve(fake, TinyImage(manifest, {str(Digest.of(data)): data for data in (config, tar)}))
        run(source, f"docker://{fake.host}/new:1", conversion=Conversion.of(None, "gzip"))
        made = at(fake, "new:1")
        assert made.media_type == media_types.DOCKER_MANIFEST
        assert made.children[1].media_type == media_types.DOCKER_LAYER_GZIP

    @pytest.mark.parametrize("sink", ["oci:{tmp}/x:1", "oci-archive:{tmp}/x:1", "dir:{tmp}/x", "store:new:1"])
    def test_any_sink(self, fake: FakeRegistry, run: Run, tmp_path: Path, sink: str) -> None:
        text = sink.format(tmp=tmp_path)
        copied = run(serve(fake, IMAGE), text, conversion=Conversion.of(None, "zstd"))
        back = run(text, f"docker://{fake.host}/back:1")
        assert back.descriptor.digest == copied.descriptor.digest
        made = at(fake, "back:1")
        assert isinstance(made, Manifest)
        assert {layer.media_type for layer in made.layers} == {media_types.OCI_LAYER_ZSTD}

    def test_layer_that_is_not_its_diff_id(self, fake: FakeRegistry, run: Run) -> None:
        config = ImageConfig(AMD64, diff_ids=(DiffID.of(b"other"),)).encode()
        data = gzip.compress(layer_tar({"a": b"1"}))
        manifest = Manifest.build(
            Descriptor.of(config, media_types.OCI_CONFIG), [Descriptor.of(data, media_types.OCI_LAYER_GZIP)]
        )
        source = serve(fake, TinyImage(manifest, {str(Digest.of(blob)): blob for blob in (config, data)}))
        with pytest.raises(DigestMismatch, match="content of a layer"):
            run(source, f"docker://{fake.host}/new:1", conversion=Conversion.of(None, "zstd"))
        assert ("new", "1") not in fake.manifests
        assert fake.uploads == {}

    def test_what_an_archive_holds_compressed_stays_so(
        self, fake: FakeRegistry, store: Store, run: Run, tmp_path: Path
    ) -> None:
        add_to_store(store, IMAGE, "app:1")
        run("app:1", f"docker-archive:{tmp_path}/x.tar:app:1")
        run(f"docker-archive:{tmp_path}/x.tar", f"docker://{fake.host}/new:1", conversion=Conversion("v2s2", None, 9))
        made = at(fake, "new:1")
        assert made.media_type == media_types.DOCKER_MANIFEST
        assert {layer.media_type for layer in made.children[1:]} == {media_types.DOCKER_LAYER_GZIP}


class TestPlatforms:
    IMAGES = (tiny_image({"a": b"64"}), tiny_image({"b": b"64"}, platform=ARM64), tiny_image(platform=S390X))

    def test_several_give_an_index_of_them(self, fake: FakeRegistry, run: Run) -> None:
        source = serve(fake, *self.IMAGES)
        copied = run(source, f"docker://{fake.host}/new:1", platforms=(ARM64, AMD64))
        made = at(fake, "new:1")
        assert isinstance(made, Index)
        assert list(made.manifests) == [image.descriptor for image in self.IMAGES[:2]]
        assert copied.changed
        assert copied.chosen.digest == tiny_index(self.IMAGES).digest
        assert ("new", str(self.IMAGES[2].manifest.digest)) not in fake.manifests

    def test_all_of_them_are_the_same_index(self, fake: FakeRegistry, run: Run) -> None:
        copied = run(serve(fake, *self.IMAGES), f"docker://{fake.host}/new:1", platforms=(S390X, ARM64, AMD64))
        assert copied.descriptor.digest == tiny_index(self.IMAGES).digest
        assert not copied.changed

    def test_attestations_of_what_is_taken(self, fake: FakeRegistry, run: Run) -> None:
        index, about = attested_index(self.IMAGES[0], *self.IMAGES[1:])
        for image in (*self.IMAGES, about):
            serve(fake, image)
        fake.add_manifest("app", "all", index)
        for platforms, expected in (((AMD64, ARM64), 3), ((ARM64, S390X), 2)):
            run(f"docker://{fake.host}/app:all", f"docker://{fake.host}/new:1", platforms=platforms)
            assert len(at(fake, "new:1").children) == expected

    def test_an_archive_holds_one(self, fake: FakeRegistry, run: Run, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="holds one platform only: name one"):
            run(serve(fake, *self.IMAGES), f"docker-archive:{tmp_path}/x", platforms=(AMD64, ARM64))


class TestImmutable:
    @pytest.mark.parametrize(
        "changes",
        [
            {"conversion": Conversion("v2s2")},
            {"conversion": Conversion.of(None, "zstd")},
            {"platforms": (AMD64, ARM64)},
        ],
        ids=["form", "compression", "platforms"],
    )
    def test_fails_before_anything_is_sent(self, fake: FakeRegistry, run: Run, changes: dict[str, object]) -> None:
        with pytest.raises(InvalidInput, match="digest would change: --preserve-digests forbids that"):
            run(
                serve(fake, *TestPlatforms.IMAGES),
                f"docker://{fake.host}/new:1",
                immutable="--preserve-digests forbids that",
                **changes,
            )
        assert writes(fake) == []

    def test_what_changes_nothing_is_fine(self, fake: FakeRegistry, run: Run) -> None:
        copied = run(
            serve(fake, IMAGE), f"docker://{fake.host}/new:1", immutable="it", conversion=Conversion.of("oci", "gzip")
        )
        assert copied.descriptor.digest == IMAGE.manifest.digest

    def test_an_archive_that_keeps_no_manifest(self, fake: FakeRegistry, run: Run, tmp_path: Path) -> None:
        for changes in ({"immutable": "it"}, {"conversion": Conversion("oci")}):
            with pytest.raises(InvalidInput, match="keeps no manifest"):
                run(serve(fake, IMAGE), f"docker-archive:{tmp_path}/x", **changes)
        assert not (tmp_path / "x").exists()

    def test_destination_with_a_digest(self, fake: FakeRegistry, run: Run) -> None:
        source = serve(fake, IMAGE)
        name = f"docker://{fake.host}/new:tag@{IMAGE.manifest.digest}"
        with pytest.raises(InvalidInput, match="would change: the digest of docker://"):
            run(source, name, conversion=Conversion("v2s2"))
        with pytest.raises(InvalidInput, match="names another"):
            run(serve(fake, DOCKER_IMAGE, name="app:2"), name)
        assert writes(fake) == []
        run(source, name)
        assert at(fake, "new:tag").digest == IMAGE.manifest.digest


class TestNames:
    def test_additional_tags(self, fake: FakeRegistry, run: Run) -> None:
        more = ("2", f"{fake.host}/new:3")
        run(serve(fake, IMAGE), f"docker://{fake.host}/new:1", more_names=more)
        assert {tag for repository, tag in fake.manifests if repository == "new" and ":" not in tag} == {"1", "2", "3"}

    def test_additional_tag_elsewhere(self, fake: FakeRegistry, run: Run) -> None:
        with pytest.raises(InvalidInput, match="want a tag of"):
            run(serve(fake, IMAGE), f"docker://{fake.host}/new:1", more_names=(f"{fake.host}/other:3",))

    def test_tag_and_digest_of_a_source(self, fake: FakeRegistry, run: Run) -> None:
        """The digest decides, and the tag need not be there."""
        serve(fake, IMAGE)
        source = f"docker://{fake.host}/app:moved@{IMAGE.manifest.digest}"
        assert run(source, f"docker://{fake.host}/new:1").descriptor.digest == IMAGE.manifest.digest

    def test_a_tag_that_stands_for_it_already_is_left_alone(self, fake: FakeRegistry, run: Run) -> None:
        run(serve(fake, IMAGE), f"docker://{fake.host}/new:1")
        before = writes(fake)
        run(serve(fake, IMAGE), f"docker://{fake.host}/new:1")
        assert writes(fake) == before
