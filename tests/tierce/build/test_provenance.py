"""Attestations of how an image was made: what they say, and that docker, podman and skopeo take the index."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker
from tests.support.process import command, need
from tests.support.registry import Registry

DOCKERFILE = """\
ARG V=1
FROM scratch AS base
COPY f /f
FROM base
ARG V
LABEL v=$V
"""


def blob(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())


def index_of(layout: Path) -> dict[str, Any]:
    found: dict[str, Any] = blob(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    return found


def statement(layout: Path, about: str) -> dict[str, Any]:
    """The statement in an index that is about the manifest with this digest, each link to it checked."""
    for child in index_of(layout)["manifests"]:
        if child.get("annotations", {}).get("vnd.docker.reference.digest") == about:
            assert child["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
            assert child["platform"] == {"architecture": "unknown", "os": "unknown"}
            manifest = blob(layout, child["digest"])
            (layer,) = manifest["layers"]
            assert layer["mediaType"] == "application/vnd.in-toto+json"
            found: dict[str, Any] = blob(layout, layer["digest"])
            assert layer["annotations"] == {"in-toto.io/predicate-type": found["predicateType"]}
            assert blob(layout, manifest["config"]["digest"])["rootfs"]["diff_ids"] == [layer["digest"]]
            return found
    raise AssertionError(f"nothing is attested of {about}")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "f").write_text("f")
    return directory


@pytest.fixture
def tierce(tmp_path: Path) -> Tierce:
    return Tierce(tmp_path / "root", {"HTTP_PROXY": "http://user:canary@proxy.test"})


def built(tierce: Tierce, context: Path, *flags: str) -> Path:
    layout = context.parent / "layout"
    tierce("build", "-t", "r.test/app:1", "-o", f"type=oci,tar=false,dest={layout}", *flags, context)
    return layout


def test_little_is_told(tierce: Tierce, context: Path) -> None:
    layout = built(tierce, context, "--provenance=true", "--build-arg=V=secret-like", "--label=a=b")
    (image, _) = index_of(layout)["manifests"]
    found = statement(layout, image["digest"])
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    digest = image["digest"].partition(":")[2]
    assert found["subject"] == [
        {"name": "pkg:docker/r.test/app@1?platform=linux%2Famd64", "digest": {"sha256": digest}}
    ]
    made, run = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]["metadata"]
    assert made["externalParameters"] == {
        "configSource": {"path": "Dockerfile"},
        "request": {"frontend": "dockerfile.v0", "locals": [{"name": "context"}, {"name": "dockerfile"}]},
    }
    assert made["internalParameters"] == {"builderPlatform": "linux/amd64"}
    assert run["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert run["startedOn"] <= run["finishedOn"]
    assert "secret-like" not in json.dumps(found)


def test_all_is_told_but_secrets(tierce: Tierce, context: Path) -> None:
    words = "--attest=type=provenance,mode=max,builder-id=https://ci.test/1,reproducible=true"
    layout = built(tierce, context, words, "--build-arg=V=2", "--label=a=b", "--target=base")
    (image, _) = index_of(layout)["manifests"]
    found = statement(layout, image["digest"])["predicate"]
    request = found["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"target": "base", "build-arg:V": "2", "label:a": "b"}
    steps = found["buildDefinition"]["internalParameters"]["buildConfig"]["steps"]
    assert [step["inputs"] for step in steps] == [[], ["step0:0"]]
    run = found["runDetails"]
    assert run["builder"] == {"id": "https://ci.test/1"}
    assert run["metadata"]["buildkit_reproducible"] is True
    told = run["metadata"]["buildkit_metadata"]
    assert base64.b64decode(told["source"]["infos"][0]["data"]).decode() == DOCKERFILE
    assert told["source"]["locations"]["step1"]["locations"] == [
        {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]}
    ]
    (layers,) = told["layers"]["step1:0"]
    assert layers == blob(layout, image["digest"])["layers"]
    assert "canary" not in json.dumps(found)


def test_each_platform_has_its_own_and_an_epoch_makes_them_the_same(tierce: Tierce, context: Path) -> None:
    flags = ("--provenance=mode=max", "--platform=linux/amd64,linux/arm64", "--timestamp=0")
    (context / "metadata").unlink(missing_ok=True)
    layout = built(tierce, context, *flags, f"--metadata-file={context.parent}/metadata")
    images = [child["digest"] for child in index_of(layout)["manifests"] if child["platform"]["os"] == "linux"]
    names = [statement(layout, digest)["subject"][0]["name"].rpartition("=")[2] for digest in images]
    assert names == ["linux%2Famd64", "linux%2Farm64"]
    told = json.loads((context.parent / "metadata").read_text())
    assert told["buildx.build.provenance/linux/arm64"] == statement(layout, images[1])["predicate"]
    other = Tierce(context.parent / "other-root")
    other("build", "-t", "r.test/app:1", *flags, f"--metadata-file={context.parent}/again", context)
    assert json.loads((context.parent / "again").read_text())["containerimage.digest"] == told["containerimage.digest"]


def test_nothing_is_attested_unasked(tierce: Tierce, context: Path) -> None:
    for flags in ((), ("--provenance=false", "--sbom=false"), ("--attest=type=provenance,disabled=true",)):
        layout = built(tierce, context, *flags)
        assert "manifests" not in index_of(layout)


def test_one_platform_may_have_an_index(tierce: Tierce, context: Path) -> None:
    for flags in (("--build-arg=BUILDKIT_MULTI_PLATFORM=1",), ("--provenance=true",)):
        layout = built(tierce, context, *flags, "--annotation=index:a=b")
        assert index_of(layout)["annotations"] == {"a": "b"}
        assert index_of(layout)["manifests"][0]["platform"] == {"architecture": "amd64", "os": "linux"}


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--sbom=true",), "run a scanner"),
        (("--attest=type=sbom",), "run a scanner"),
        (("--attest=type=slsa",), "type=provenance"),
        (("--provenance=max",), "mode=min|max"),
        (("--provenance=mode=some",), "want min or max"),
        (("--provenance=mode=max,version=v0.2",), "there is v1"),
        (("--provenance=mode=max,x=y",), "unknown attribute 'x'"),
        (("--provenance=true", "--format=docker"), "use the oci format"),
    ],
)
def test_what_is_refused(tierce: Tierce, context: Path, flags: tuple[str, ...], problem: str) -> None:
    done = tierce.attempt("build", *flags, context)
    assert (done.code, problem in done.stderr) == (1, True), str(done)


@pytest.mark.root
@pytest.mark.peer
def test_peers_take_the_index(
    tierce_with_busybox: Tierce, context: Path, open_registry: Registry, docker: Docker, tmp_path: Path
) -> None:
    """docker pulls and runs the image; skopeo copies all of it; what we pull again is what was pushed."""
    (context / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nCMD cat /f\n")
    name = open_registry.name("attested:1")
    tierce_with_busybox("build", "-q", "--provenance=mode=max", "-t", name, "--push", "--tls-verify=false", context)
    docker("pull", "-q", name)
    assert docker("run", "--rm", "--network=none", name) == "f"
    layout = tmp_path / "copied"
    command([need("skopeo"), "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:x"])
    (image, _) = index_of(layout)["manifests"]
    found = statement(layout, image["digest"])["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [one["uri"] for one in found] == ["pkg:docker/busybox@latest?platform=linux%2Famd64"]
    tierce_with_busybox("rmi", "-f", name)
    tierce_with_busybox("pull", "-q", "--tls-verify=false", name)
    tierce_with_busybox("system", "check")
    assert tierce_with_busybox("run", "--rm", "--network=none", name).stdout == "f"
