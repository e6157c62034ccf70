"""``tierce copy`` with a real registry, beside skopeo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.descriptor import Descriptor
from image.digest import Digest
from tests.support.cli import Tierce
from tests.support.process import command, need
from tests.support.registry import Login, Registry, registry
from tests.tierce.conftest import Stock

pytestmark = pytest.mark.peer

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("locked"), login=Login("alice", "secret"), tls=True) as running:
        yield running


def add_index(stock: Stock, name: str) -> Descriptor:
    """An image a platform, and an index of them under ``name:1``."""
    children = [
        (stock.add(f"{name}-{number}", content=platform, platform=platform), platform)
        for number, platform in enumerate(PLATFORMS)
    ]
    return stock.add_index(f"{name}:1", children)


def raw(name: str) -> bytes:
    return command([need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]).encode()


def test_whole_index_has_the_digest_that_skopeo_gives_it(
    stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path
) -> None:
    target = add_index(stock, "all")
    first, second, theirs = (place.name(f"{name}/app:1") for name in ("first", "second", "theirs"))
    tierce("copy", "all:1", f"docker://{first}")
    done = tierce(
        "copy", f"docker://{first}", f"docker://{second}", "--digestfile", tmp_path / "digest", "--preserve-digests"
    )
    command([need("skopeo"), "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
             f"docker://{first}", f"docker://{theirs}"])  # fmt: skip
    assert done.stdout.strip() == (tmp_path / "digest").read_text() == str(target.digest)
    assert raw(second) == raw(theirs) == raw(first)


def test_some_platforms_tell_that_the_digest_changed(stock: Stock, tierce: Tierce, place: Registry) -> None:
    target = add_index(stock, "some")
    name = place.name("some/app:1")
    done = tierce("copy", "--platform", "linux/arm64", "--platform", "linux/amd64", "some:1", f"docker://{name}")
    assert f"Digest changed: it was {target.digest}\n" in done.stderr
    index = json.loads(raw(name))
    assert [child["platform"]["architecture"] for child in index["manifests"]] == ["amd64", "arm64"]
    assert done.stdout.strip() == str(Digest.of(raw(name)))


@pytest.mark.parametrize(
    ("flags", "media_type", "layer"),
    [
        (("--format", "v2s2"), "distribution.manifest.v2+json", "rootfs.diff.tar.gzip"),
        (("--dest-compress-format", "zstd", "--dest-compress-level=7"), "oci.image.manifest.v1+json", "tar+zstd"),
    ],
    ids=["docker", "zstd"],
)
def test_skopeo_reads_what_was_converted(
    stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path, flags: tuple[str, ...], media_type: str, layer: str
) -> None:
    stock.add("app")
    name = place.name(f"converted/{flags[1]}:1")
    done = tierce("copy", *flags, "app", f"docker://{name}")
    assert "Digest changed" in done.stderr
    manifest = json.loads(raw(name))
    assert manifest["mediaType"].endswith(media_type)
    assert manifest["layers"][0]["mediaType"].endswith(layer)
    command([need("skopeo"), "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/check"])
    back = tierce("copy", f"docker://{name}", "back:1")
    assert back.stdout == done.stdout


def test_preserve_digests_refuses_before_anything_is_sent(stock: Stock, tierce: Tierce, place: Registry) -> None:
    stock.add("app")
    name = place.name("preserved/app:1")
    done = tierce.attempt("copy", "--preserve-digests", "--format", "v2s2", "app", f"docker://{name}")
    assert done.code == 1
    assert "its digest would change: --preserve-digests forbids that" in done.stderr
    assert not (place.directory / "data/docker/registry/v2/repositories/preserved").exists()


def test_credentials_of_both_ends(
    stock: Stock, tierce: Tierce, place: Registry, locked: Registry, tmp_path: Path
) -> None:
    stock.add("app")
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    assert locked.certificate is not None
    (certificates / "ca.crt").write_bytes(locked.certificate.read_bytes())
    trusted, name = ("--dest-cert-dir", certificates), f"docker://{locked.name('app:1')}"
    tierce("copy", "-q", *trusted, "--dest-username", "alice", "--dest-password", "secret", "app", name)
    assert "certificate" in tierce.attempt("copy", "-q", "--dest-creds=alice:secret", "app", name).stderr
    assert "access denied" in tierce.attempt("copy", "-q", *trusted, "--dest-no-creds", "app", name).stderr
    tierce(
        "copy", "-q", "--src-tls-verify=false", "--src-creds", "alice:secret", "--additional-tag", "2",
        name, f"docker://{place.name('from-locked:1')}",
    )  # fmt: skip
    assert raw(place.name("from-locked:2")) == raw(place.name("from-locked:1"))


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--all", "--platform", "linux/amd64"), "mutually exclusive"),
        (("--src-creds", "a:b", "--src-no-creds"), "mutually exclusive"),
        (("--dest-username", "a"), "--dest-username and --dest-password go together"),
        (("--dest-compress-format", "zstd:chunked"), "is not supported: use zstd"),
        (("--dest-compress-format", "lzma"), "want gzip or zstd"),
        (("--dest-force-compress-format",), "needs --dest-compress-format"),
        (("--format", "v2s2", "--dest-compress-format", "zstd"), "zstd layers need --format oci"),
        (("--dest-compress-format", "gzip", "--dest-compress-level", "77"), "no compression level 77"),
        (("--retry-delay", "soon"), "invalid duration 'soon'"),
        (("--additional-tag", "2"), "takes no additional tags"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags_that_do_not_go_together(
    stock: Stock, tierce: Tierce, tmp_path: Path, flags: tuple[str, ...], error: str
) -> None:
    stock.add("app")
    done = tierce.attempt("copy", *flags, "app", f"oci:{tmp_path}/x:1")
    assert done.code != 0
    assert error in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "destination",
    ["docker://{host}/verified:1", "oci:{tmp}/x:1", "dir:{tmp}/x", "docker-archive:{tmp}/x:a:1", "kept:1"],
)
def test_verify(stock: Stock, tierce: Tierce, place: Registry, tmp_path: Path, destination: str) -> None:
    stock.add("app")
    done = tierce("copy", "--verify", "app", destination.format(host=place.host, tmp=tmp_path))
    assert "Verified " in done.stderr
    assert "1 manifests, 2 blobs of " in done.stderr


def test_signatures_of_others_go_along(stock: Stock, tierce: Tierce, place: Registry) -> None:
    """Under cosign's tag, in a registry that has no referrers API."""
    target, signature = stock.add("app"), stock.add("signature", content="signed")
    first, second = f"docker://{place.name('signed')}", f"docker://{place.name('signed-too')}"
    tag = f"sha256-{target.digest.encoded}.sig"
    tierce("copy", "-q", "app", f"{first}:1")
    tierce("copy", "-q", "signature", f"{first}:{tag}")
    done = tierce("copy", "--verify", f"{first}:1", f"{second}:1")
    assert "Copied what refers to it: 1\n" in done.stderr
    assert ": 2 manifests, 4 blobs of " in done.stderr
    assert Digest.of(raw(place.name(f"signed-too:{tag}"))) == signature.digest
    refused = tierce.attempt("copy", "--format", "v2s2", f"{first}:1", f"{second}:2")
    assert "1 signatures or other artifacts refer to it, which --no-referrers leaves behind" in refused.stderr
    tierce("copy", "--remove-signatures", "--format", "v2s2", f"{first}:1", f"{second}:2")
