"""Outputs of builds, read by the tools that users have: docker, podman, skopeo, tar, a real registry."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker
from tests.support.podman import Podman
from tests.support.process import command, need
from tests.support.registry import Registry

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox
COPY greeting /greeting
RUN mkdir /d && echo one > /d/one && ln /d/one /d/two && ln -s one /d/link && chown 7:8 /d/one && chmod 4750 /d/one
RUN rm /d/two && echo gone > /gone
RUN rm /gone && rm /etc/passwd
ENV A=b
HEALTHCHECK CMD true
CMD ["cat", "/greeting"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "greeting").write_text("hello\n")
    return directory


@pytest.fixture
def tierce(tierce_with_busybox: Tierce) -> Tierce:
    return tierce_with_busybox


def build(tierce: Tierce, context: Path, *words: str | Path) -> str:
    """Build; the image id, "" where no image came out."""
    return tierce("build", "--network=none", "--quiet", *words, context).stdout.strip()


def layout_manifest(directory: Path, *, position: int = 0) -> dict[str, Any]:
    index = json.loads((directory / "index.json").read_bytes())
    return blob(directory, index["manifests"][position]["digest"])


def blob(directory: Path, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "blobs" / digest.replace(":", "/")).read_bytes())
    return found


# Archives and layouts


def test_docker_loads_a_docker_archive_and_runs_it(
    tierce: Tierce, context: Path, tmp_path: Path, docker: Docker
) -> None:
    archive = tmp_path / "image.tar"
    image_id = build(tierce, context, "-t", "from-archive:1", "-o", f"type=docker,dest={archive}")
    docker("load", "--input", archive)
    assert docker("run", "--rm", "--network=none", "from-archive:1") == "hello\n"
    assert docker("image", "inspect", "--format={{.Id}}", "from-archive:1").strip() == image_id
    docker("rmi", "from-archive:1")


def test_an_archive_goes_to_standard_output(tierce: Tierce, context: Path, docker: Docker) -> None:
    argv = tierce.argv("build", "--network=none", "-t", "piped:1", "-o", "type=docker", context)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=tierce.env()) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            names = [member.name for member in archive]
    assert process.returncode == 0
    assert "manifest.json" in names


def test_podman_runs_an_oci_archive(tierce: Tierce, context: Path, tmp_path: Path, podman_and_buildah: Podman) -> None:
    archive = tmp_path / "image.tar"
    build(tierce, context, "-t", "localhost/from-oci:1", "-o", f"type=oci,dest={archive}")
    podman_and_buildah("load", "--input", archive)
    said = podman_and_buildah.run("localhost/from-oci:1", "cat", "/greeting")
    assert said == "hello\n"
    podman_and_buildah("rmi", "localhost/from-oci:1")


@pytest.mark.parametrize(
    ("attributes", "layer"),
    [
        ("", "oci.image.layer.v1.tar+gzip"),
        (",compression=zstd", "oci.image.layer.v1.tar+zstd"),
        (",compression=zstd,compression-level=1", "oci.image.layer.v1.tar+zstd"),
        (",compression=uncompressed", "oci.image.layer.v1.tar"),
    ],
    ids=["gzip", "zstd", "zstd level 1", "uncompressed"],
)
def test_skopeo_reads_a_layout(tierce: Tierce, context: Path, tmp_path: Path, attributes: str, layer: str) -> None:
    need("skopeo")
    layout = tmp_path / "layout"
    build(tierce, context, "-t", "a:1", "-o", f"type=oci,tar=false,dest={layout}{attributes}")
    manifest = layout_manifest(layout)
    assert {one["mediaType"].removeprefix("application/vnd.") for one in manifest["layers"][1:]} == {layer}
    inspected = json.loads(command(["skopeo", "inspect", f"oci:{layout}:a:1"]))
    assert inspected["Layers"] == [one["digest"] for one in manifest["layers"]]
    command(["skopeo", "copy", "--quiet", f"oci:{layout}:a:1", f"dir:{tmp_path / 'copied'}"])  # verifies every digest


def test_base_layers_keep_their_compression_unless_forced(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    kinds = {}
    for force in ("false", "true"):
        layout = tmp_path / force
        build(tierce, context, "-o", f"type=oci,tar=false,dest={layout},compression=zstd,force-compression={force}")
        kinds[force] = [one["mediaType"].rpartition("+")[2] for one in layout_manifest(layout)["layers"]]
    assert kinds == {"false": ["gzip"] + ["zstd"] * 4, "true": ["zstd"] * 5}


def test_the_digest_does_not_depend_on_what_was_cached(
    tierce: Tierce, context: Path, tmp_path: Path, busybox_archive: Path
) -> None:
    other = Tierce(tmp_path / "other")
    other("load", "--input", busybox_archive)
    words = ("--timestamp", "0")
    build(tierce, context, *words)  # layers are cached as gzip
    digests = set()
    for number, one in enumerate((tierce, other)):
        layout = tmp_path / f"layout{number}"
        build(one, context, *words, "-o", f"type=oci,tar=false,dest={layout},compression=zstd")
        digests.add(json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    assert len(digests) == 1


# Root filesystems


def test_a_tar_has_the_merged_tree_with_its_owners(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    path = tmp_path / "root.tar"
    assert build(tierce, context, "-o", f"type=tar,dest={path}") == ""
    with tarfile.open(path) as archive:
        members = {member.name: member for member in archive}
    assert (members["d/one"].uid, members["d/one"].gid, members["d/one"].mode) == (7, 8, 0o4750)
    assert members["d/link"].linkname == "one"
    assert "gone" not in members
    assert "etc/passwd" not in members
    assert "bin/sh" in members
    assert not any(".wh." in name for name in members)
    assert tierce("images", "-q").stdout.count("\n") == 1  # the base alone: a tar names nothing


def test_root_filesystems_are_dockers(tierce: Tierce, context: Path, tmp_path: Path, docker: Docker) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    build(tierce, context, "-o", f"type=tar,dest={ours}.tar", "-o", f"type=local,dest={ours}")
    for kind, dest in (("tar", f"{theirs}.tar"), ("local", str(theirs))):
        docker("build", "--quiet", "--network=none", "--output", f"type={kind},dest={dest}", context)
    for mine, docker_s in (
        (tar_facts(Path(f"{ours}.tar")), tar_facts(Path(f"{theirs}.tar"))),
        (directory_facts(ours), directory_facts(theirs)),
    ):
        stubs = {name for name in docker_s.keys() - mine.keys() if name in {"proc", "sys"}}  # where RUN had mounts
        assert mine == {name: facts for name, facts in docker_s.items() if name not in stubs}


def tar_facts(path: Path) -> dict[str, tuple[object, ...]]:
    """Of a link, which of its names comes first in a tar is the writer's choice."""
    with tarfile.open(path) as archive:
        return {
            member.name: (
                member.isreg() or member.islnk(), member.issym() and member.linkname, member.mode, member.uid, member.gid,
            )
            for member in archive
        }  # fmt: skip


def directory_facts(path: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for entry in path.rglob("*"):
        status = entry.lstat()
        target = entry.readlink() if entry.is_symlink() else None
        found[str(entry.relative_to(path))] = (status.st_mode, status.st_uid, status.st_gid, target)
    return found


def test_a_directory_has_the_files_of_the_caller(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / "d").mkdir(parents=True)
    (target / "kept").write_text("kept")
    build(tierce, context, "-o", str(target))
    assert (target / "greeting").read_text() == "hello\n"
    assert (target / "d" / "link").readlink() == Path("one")
    status = (target / "d" / "one").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (os.geteuid(), os.getegid(), 0o4750)
    assert (target / "kept").exists()
    build(tierce, context, "-o", f"type=local,dest={target},mode=delete")
    assert not (target / "kept").exists()
    assert (target / "greeting").exists()


def test_a_link_in_the_target_does_not_lead_out(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out"
    target.mkdir()
    (target / "d").symlink_to(outside)
    tierce.attempt("build", "--network=none", "-q", "-o", target, context)
    assert list(outside.iterdir()) == []


def test_an_image_without_a_layer_has_every_output(tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV A=1\n")
    build(
        tierce, tmp_path, "--squash", "-o", f"type=local,dest={tmp_path / 'out'}", "-o", f"type=tar,dest={tmp_path / 'tar'}",
        "-o", f"type=oci,dest={tmp_path / 'oci'}", "--cache-to", f"type=local,dest={tmp_path / 'cache'}",
    )  # fmt: skip
    assert list((tmp_path / "out").iterdir()) == []
    with tarfile.open(tmp_path / "tar") as archive:
        assert archive.getnames() == []


def test_several_outputs_of_one_build(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    image_id = build(
        tierce, context, "-t", "several", "-o", "type=image", "-o", f"type=tar,dest={tmp_path / 'a.tar'}",
        "-o", f"type=local,dest={tmp_path / 'b'}", "-o", f"type=oci,dest={tmp_path / 'c.tar'}",
    )  # fmt: skip
    assert tierce("inspect", "--format={{.Id}}", "several").stdout.strip() == image_id
    assert all((tmp_path / name).exists() for name in ("a.tar", "b", "c.tar"))


def test_cacheonly_gives_nothing_but_the_cache(tierce: Tierce, context: Path) -> None:
    before = tierce("images", "-q").stdout
    assert build(tierce, context, "-o", "type=cacheonly") == ""
    assert tierce("images", "-q").stdout == before
    said = tierce("build", "--network=none", "--progress=plain", context).stderr
    assert "DONE" not in said


# Pushing


def test_what_is_pushed_docker_runs(
    tierce: Tierce, context: Path, docker: Docker, open_registry: Registry, tmp_path: Path
) -> None:
    name, metadata = open_registry.name("pushed:1"), tmp_path / "metadata.json"
    build(tierce, context, "-t", name, "--push", "--tls-verify=false", "--metadata-file", metadata)
    docker("pull", name)
    assert docker("run", "--rm", "--network=none", name) == "hello\n"
    found = json.loads(metadata.read_bytes())
    assert found["image.name"] == name
    assert docker("image", "inspect", "--format={{.Id}}", name).strip() == found["containerimage.config.digest"]
    repository = docker("image", "inspect", "--format={{index .RepoDigests 0}}", name).strip()
    assert repository.endswith("@" + found["containerimage.digest"])
    assert found["containerimage.descriptor"]["digest"] == found["containerimage.digest"]
    docker("rmi", name)


def test_a_push_by_digest_leaves_no_tag(tierce: Tierce, context: Path, open_registry: Registry) -> None:
    need("skopeo")
    name = open_registry.name("by-digest")
    build(tierce, context, "--tls-verify=false", "-o", f"type=image,name={name},push-by-digest=true,push=true")
    assert tierce.attempt("pull", "--tls-verify=false", name).code != 0


# What the image says


def test_podmans_words_for_the_docker_format(
    tierce: Tierce, context: Path, docker: Docker, open_registry: Registry
) -> None:
    name = open_registry.name("v2s2:1")
    build(tierce, context, "-t", name, "--format", "docker", "--push", "--tls-verify=false")
    raw = json.loads(command([need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]))
    assert raw["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert raw["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    docker("pull", name)
    assert docker("image", "inspect", "--format={{.Config.Healthcheck.Test}}", name).strip() == "[CMD-SHELL true]"
    docker("rmi", name)


def test_squash_makes_one_layer_without_what_was_removed(
    tierce: Tierce, context: Path, tmp_path: Path, docker: Docker
) -> None:
    layout, archive, whole = tmp_path / "layout", tmp_path / "squashed.tar", tmp_path / "whole.tar"
    build(
        tierce, context, "--squash", "-t", "squashed:1",
        "-o", f"type=oci,tar=false,dest={layout}", "-o", f"type=docker,dest={archive}", "-o", f"type=tar,dest={whole}",
    )  # fmt: skip
    manifest = layout_manifest(layout)
    assert len(manifest["layers"]) == 2
    with tarfile.open(layout / "blobs" / manifest["layers"][1]["digest"].replace(":", "/")) as layer:
        names = sorted(layer.getnames())
    assert names == ["d", "d/link", "d/one", "etc", "etc/.wh.passwd", "greeting"]
    config = blob(layout, manifest["config"]["digest"])
    assert [entry.get("empty_layer", False) for entry in config["history"]].count(False) == 2
    docker("load", "--input", archive)
    assert docker_files(docker, "squashed:1") == plain_files(whole)
    docker("rmi", "squashed:1")


def docker_files(docker: Docker, image: str) -> list[str]:
    listing = docker("run", "--rm", "--network=none", image, "find", "/", "-xdev", "-type", "f")
    own = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", "/dev/", "/proc/", "/sys/")
    return sorted(path for path in listing.splitlines() if not path.startswith(own))


def plain_files(path: Path) -> list[str]:
    own = ("etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/", "proc/", "sys/")
    with tarfile.open(path) as archive:
        return sorted(
            f"/{member.name}"
            for member in archive
            if (member.isfile() or member.islnk()) and not member.name.startswith(own)
        )


def test_annotations_and_no_history(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    build(
        tierce, context, "--omit-history", "--annotation", "a=1", "--annotation", "manifest:b=2",
        "-o", f"type=oci,tar=false,dest={layout},annotation.c=3",
    )  # fmt: skip
    manifest = layout_manifest(layout)
    assert manifest["annotations"] == {"a": "1", "b": "2", "c": "3"}
    assert blob(layout, manifest["config"]["digest"])["history"] == []


# Platforms


SCRATCH = """\
FROM scratch
ARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDPLATFORM
COPY $TARGETARCH$TARGETVARIANT /program
ENV FOR=$TARGETPLATFORM ON=$BUILDPLATFORM
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "programs"
    directory.mkdir()
    (directory / "Dockerfile").write_text(SCRATCH)
    for name in ("amd64", "arm64", "armv6"):
        (directory / name).write_text(f"for {name}")
    return directory


def test_several_platforms_are_an_index(
    tierce: Tierce, programs: Path, tmp_path: Path, open_registry: Registry
) -> None:
    name, layout = open_registry.name("many:1"), tmp_path / "layout"
    image_id = build(
        tierce, programs, "-t", name, "--platform", "linux/amd64,linux/arm64", "--platform", "linux/arm/v6",
        "--tls-verify=false", "-o", "type=registry", "-o", f"type=oci,tar=false,dest={layout}",
        "--annotation", "index:who=us", "--annotation", "index-descriptor[linux/arm64]:which=64",
    )  # fmt: skip
    raw = json.loads(command([need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]))
    platforms = ["/".join(one["platform"].values()) for one in raw["manifests"]]
    assert platforms == ["amd64/linux", "arm64/linux", "arm/linux/v6"]
    assert raw["annotations"] == {"who": "us"}
    assert [one.get("annotations") for one in raw["manifests"]] == [None, {"which": "64"}, None]
    for architecture in ("amd64", "arm64"):
        inspected = json.loads(
            command(["skopeo", "inspect", "--tls-verify=false", "--override-arch", architecture, f"docker://{name}"])
        )
        assert inspected["Architecture"] == architecture
        assert f"FOR=linux/{architecture}" in inspected["Env"]
    assert json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"] == image_id


def test_a_directory_of_several_platforms_has_a_folder_each(tierce: Tierce, programs: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    build(tierce, programs, "--platform", "linux/amd64,linux/arm/v6", "-o", str(target))
    assert (target / "linux_amd64" / "program").read_text() == "for amd64"
    assert (target / "linux_arm_v6" / "program").read_text() == "for armv6"


def test_a_foreign_program_needs_an_emulator(tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nRUN true\n")
    failed = tierce.attempt("build", "--network=none", "--platform", "linux/s390x", tmp_path)
    assert failed.code == 1
    assert "cannot run programs of linux/s390x on this" in failed.stderr
    assert "qemu-user-static" in failed.stderr
    assert ">>> RUN true" in failed.stderr


def test_no_platform_is_begun_when_one_cannot_be_built(tierce: Tierce, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nRUN true\n")
    failed = tierce.attempt(
        "build", "--network=none", "--progress=plain", "--platform=linux/amd64,linux/s390x", tmp_path
    )
    assert failed.code == 1
    assert "cannot run programs of linux/s390x" in failed.stderr
    assert "COPY Dockerfile /\n#" not in failed.stderr
    assert tierce("builder", "du", "--format", "{{.ID}}").stdout == ""


# Refusals


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-o", "type=nothing"], "unknown type 'nothing'"),
        (["-o", "type=local"], "want dest=DIRECTORY"),
        (["-o", "type=oci,dest=a,compression=lzma"], "compression 'lzma'"),
        (["-o", "type=image,compression=zstd,oci-mediatypes=false"], "no zstd layers"),
        (["-o", "type=image,nmae=x"], "unknown attribute 'nmae'"),
        (["-o", "type=image,name=a,name=b"], "name is given twice"),
        (["-o", "-", "-o", "type=oci"], "two outputs want standard output"),
        (["--push"], "a push needs a name"),
        (["--annotation", "index:a=b"], "has no index"),
        (["--annotation", "nope"], "want [TYPE:]KEY=VALUE"),
        (["--format", "docker", "--annotation", "a=b"], "no annotations"),
        (["--platform", "windows/amd64"], "only linux images"),
        (["--platform", "linux/amd64,linux/arm64", "-o", "type=docker,dest=x"], "holds one platform"),
        (["--platform", "linux/amd64,linux/arm64", "-o", "type=tar,dest=x"], "tar of several platforms"),
        (["-o", "type=local,dest=.,mode=delete"], "would empty a directory"),
        (["-o", "type=image,compression=zstd,compression-level=99"], "level"),
        (["--timestamp", "1", "--source-date-epoch", "2"], "mean the same"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(tierce: Tierce, tmp_path: Path, words: list[str], problem: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    failed = tierce.attempt("build", "--network=none", *words, tmp_path)
    assert failed.code == 1, str(failed)
    assert problem in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_target_that_cannot_be_written_is_one_line(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for word in (
        f"type=local,dest={tmp_path}/file/x",
        f"type=tar,dest={tmp_path}/file/x",
        f"type=oci,dest={tmp_path}/none/x",
    ):
        failed = tierce.attempt("build", "--network=none", "--progress=none", "-o", word, context)
        assert failed.code == 1
        assert len(failed.stderr.splitlines()) == 1, failed.stderr


def test_compressed_layers_are_what_they_say(tierce: Tierce, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    build(tierce, context, "-o", f"type=oci,tar=false,dest={layout},compression=gzip,compression-level=2")
    for layer in layout_manifest(layout)["layers"]:
        gzip.decompress((layout / "blobs" / layer["digest"].replace(":", "/")).read_bytes())
