"""Every way of writing an image is read by every tool that knows it, and every way of theirs by Tierce.

An image's id is the digest of its configuration, which names the content of all layers, and each
reader unpacks: the same id there is the same image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker
from tests.support.image_tree import root_directory, tree_of_tar
from tests.support.podman import Podman
from tests.support.process import command, need
from tests.support.registry import Login, Registry, registry
from tests.support.tars import archive, member

pytestmark = [pytest.mark.root, pytest.mark.peer]

_ZSTD = ("--dest-compress-format", "zstd")
_NAME = "registry.example.com/made:1"


@pytest.fixture(scope="module")
def made(busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Tierce:
    """Tierce with an image of two layers, the upper one with a whiteout, a link and odd owners; and it twice as a list."""
    directory = tmp_path_factory.mktemp("made")
    tierce = Tierce(directory / "tierce")
    top = archive(
        member("made", "directory", mode=0o750, uid=7), member("made/file", content=b"f" * 5000, mode=0o4755),
        member("made/link", "link", link="made/file"), member("bin/.wh.vi"),
    )  # fmt: skip
    (directory / "top.tar").write_bytes(top)
    tierce("append", "-q", "-b", f"docker-archive:{busybox_archive}", "-f", directory / "top.tar", "-t", "made")
    tierce("mutate", "-q", "--set-platform", "linux/arm64", "-t", "arm", "made")
    tierce("manifest", "create", "-q", "both", "made", "arm")
    return tierce


def id_in(tierce: Tierce, name: str) -> str:
    return tierce("images", "--no-trunc", "--format", "{{.ID}}", name).stdout.strip()


# What Tierce writes: a destination, flags of copy, and who reads it. "@" is the directory, "/" the registry.

WRITTEN = {
    "registry, OCI": ("docker:///oci:1", (), "docker podman skopeo"),
    "registry, Docker": ("docker:///v2s2:1", ("--format", "v2s2"), "docker podman skopeo"),
    "registry, zstd": ("docker:///zstd:1", _ZSTD, "docker podman skopeo"),
    "registry, index": ("docker:///index:1", ("--all",), "docker podman skopeo"),
    "docker-archive": (f"docker-archive:@/d.tar:{_NAME}", (), "docker-load podman-load skopeo"),
    "oci-archive": (f"oci-archive:@/o.tar:{_NAME}", (), "podman-load skopeo"),
    "oci-archive, zstd": (f"oci-archive:@/z.tar:{_NAME}", _ZSTD, "podman-load skopeo"),
    "oci": ("oci:@/layout:made", (), "umoci podman skopeo"),
    "oci, zstd": ("oci:@/zlayout:made", _ZSTD, "podman skopeo"),
    "dir": ("dir:@/dir", (), "podman skopeo"),
    "dir, Docker": ("dir:@/ddir", ("--format", "v2s2"), "podman skopeo"),
    "docker-daemon": (f"docker-daemon:{_NAME}", (), "docker-has"),
}  # fmt: skip


@pytest.mark.parametrize(("where", "flags", "readers"), WRITTEN.values(), ids=WRITTEN)
def test_read_by_peers(
    where: str, flags: tuple[str, ...], readers: str, made: Tierce, docker: Docker, podman_and_buildah: Podman,
    open_registry: Registry, tmp_path: Path,
) -> None:  # fmt: skip
    where = where.replace("docker:///", f"docker://{open_registry.name('written/')}").replace("@", str(tmp_path))
    tierce = Tierce(made.root, {"DOCKER_HOST": docker.environment["DOCKER_HOST"]})
    tierce("copy", "-q", *flags, "both" if "--all" in flags else "made", where)
    expected = id_in(made, "made")
    for reader in readers.split():
        assert _read(reader, where, docker, podman_and_buildah, tmp_path) in (expected, ""), reader


def _read(reader: str, where: str, docker: Docker, podman: Podman, tmp_path: Path) -> str:
    """The id of what a peer has read; "" from umoci, whose unpacked files are compared here."""
    transport, _, rest = where.partition(":")
    path = rest.partition(":")[0]
    name = rest.removeprefix("//")
    match reader:
        case "docker":
            docker("pull", "--quiet", name)
            return docker("image", "inspect", "--format", "{{.Id}}", name).strip()
        case "docker-load":
            docker("load", "--input", path)
            return docker("image", "inspect", "--format", "{{.Id}}", _NAME).strip()
        case "docker-has":
            assert docker.run(_NAME, "wc", "-c", "/made/link").split() == ["5000", "/made/link"]
            return docker("image", "inspect", "--format", "{{.Id}}", _NAME).strip()
        case "podman":
            insecure = ("--tls-verify=false",) if transport == "docker" else ()
            return f"sha256:{podman('pull', '--quiet', *insecure, where).strip()}"
        case "podman-load":
            podman("load", "--quiet", "--input", path)
            return podman("image", "inspect", "--format", "sha256:{{.Id}}", _NAME).strip()
        case "skopeo":
            insecure = ("--tls-verify=false",) if transport == "docker" else ()
            raw = command([need("skopeo"), "inspect", "--raw", *insecure, where])
            command([need("skopeo"), "copy", "-q", *(f"--src{flag[1:]}" for flag in insecure), where,
                     f"dir:{tmp_path}/by-skopeo"])  # fmt: skip
            assert raw
            manifest = json.loads((tmp_path / "by-skopeo/manifest.json").read_bytes())
            return str(manifest["config"]["digest"])
        case _:
            bundle = tmp_path / "bundle"
            command([need("umoci"), "unpack", "--image", rest, bundle])
            export = command([*Tierce(tmp_path / "none").argv("image", "export", where, tmp_path / "tree.tar")])
            assert export == ""
            assert root_directory(bundle / "rootfs").tree == tree_of_tar(tmp_path / "tree.tar")
            return ""


# What others write


def _written(docker: Docker, podman: Podman, tmp_path: Path) -> Mapping[str, str]:
    """Where each peer put busybox, by what it was told."""
    name = podman("images", "--format", "{{.Repository}}:{{.Tag}}", "busybox").splitlines()[0]
    for form in ("docker-archive", "oci-archive", "oci-dir", "docker-dir"):
        podman("save", "--quiet", "--format", form, "--output", tmp_path / form, name)
    podman.buildah("push", "--quiet", name, f"oci:{tmp_path}/buildah:busybox")
    podman.buildah("push", "--quiet", "--format", "v2s2", name, f"docker-archive:{tmp_path}/buildah.tar:{name}")
    docker("save", "--output", tmp_path / "docker.tar", "busybox")
    command([need("skopeo"), "copy", "-q", f"docker-archive:{tmp_path}/docker-archive", f"dir:{tmp_path}/skopeo"])
    return {
        "podman save docker-archive": f"docker-archive:{tmp_path}/docker-archive",
        "podman save oci-archive": f"oci-archive:{tmp_path}/oci-archive",
        "podman save oci-dir": f"oci:{tmp_path}/oci-dir",
        "podman save docker-dir": f"dir:{tmp_path}/docker-dir",
        "buildah push oci": f"oci:{tmp_path}/buildah:busybox",
        "buildah push docker-archive": f"docker-archive:{tmp_path}/buildah.tar",
        "docker save": f"docker-archive:{tmp_path}/docker.tar",
        "a docker daemon": "docker-daemon:busybox",
        "skopeo copy dir": f"dir:{tmp_path}/skopeo",
    }


def test_tierce_reads_what_peers_write(
    tierce: Tierce, docker: Docker, podman_and_buildah: Podman, tmp_path: Path
) -> None:
    """Each of them holds the same layers under the same configuration."""
    daemon = ("--src-daemon-host", docker.environment["DOCKER_HOST"])
    expected = json.loads(docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", "busybox"))
    found = {}
    for what, where in _written(docker, podman_and_buildah, tmp_path).items():
        tierce("copy", "-q", *daemon, where, "read:1")
        found[what] = json.loads(tierce("inspect", "--format", "{{json .RootFS.Layers}}", "read:1").stdout)
    assert found == dict.fromkeys(found, expected)


def test_logins_go_both_ways(made: Tierce, docker: Docker, podman_and_buildah: Podman, tmp_path: Path) -> None:
    """docker pulls with a login that Tierce wrote; Tierce looks with those of docker and podman."""
    login = Login("bob", "hunter2")
    with registry(tmp_path / "registry", login=login) as locked:
        name = locked.name("made:1")
        made("login", "-u", login.username, "--password-stdin", locked.host, stdin=login.password)
        made("copy", "-q", "made", f"docker://{name}")
        environment = {**docker.environment, "DOCKER_CONFIG": made.env()["DOCKER_CONFIG"]}
        command([docker.client, "pull", "--quiet", name], env=environment)
        theirs = {"DOCKER_CONFIG": str(tmp_path / "docker")}
        command([docker.client, "login", "-u", login.username, "--password-stdin", locked.host],
                env={**docker.environment, **theirs}, stdin=login.password)  # fmt: skip
        podman_and_buildah("login", "--tls-verify=false", "--authfile", tmp_path / "podman.json", "-u", login.username,
                           "-p", login.password, locked.host)  # fmt: skip
        nobody = Tierce(tmp_path / "nobody")
        assert nobody.attempt("digest", f"docker://{name}").code == 1
        by_docker = Tierce(tmp_path / "nobody", theirs)("digest", f"docker://{name}").stdout
        assert nobody("digest", "--authfile", tmp_path / "podman.json", f"docker://{name}").stdout == by_docker
