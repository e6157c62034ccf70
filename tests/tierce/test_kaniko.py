"""kaniko's command line, in the words of ``tierce build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from image.errors import InvalidInput
from tests.support.cli import Tierce
from tests.support.registry import Registry
from tierce.kaniko import parse_job

TO: dict[str, Any] = {"destination": ("r.test/a/b:1",)}


def argv(flags: dict[str, Any], **environ: str) -> str:
    return " ".join(parse_job({**TO, **flags}, environ).argv)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "--tag r.test/a/b:1 --output type=image,push=true --progress plain"),
        ({"no_push": True, "tar_path": "x.tar"}, "--output type=image --output type=docker,dest=x.tar"),
        ({"oci_layout_path": "d", "compression": "zstd"}, "--output type=oci,tar=false,dest=d,compression=zstd"),
        ({"compression": "gzip", "compression_level": "-1"}, "--output type=image,compression=gzip,push=true"),
        ({"single_snapshot": True, "reproducible": True}, "--squash --timestamp 0"),
        ({"dockerfile": "D", "target": "t", "build_arg": ("A=1", "B")}, "--file D --build-arg A=1 --build-arg B --target t"),
        ({"custom_platform": "linux/arm64", "label": ("a=b",)}, "--label a=b --platform linux/arm64"),
        ({"cache": True}, "--cache-from type=registry,ref=r.test/a/b/cache --cache-to type=registry,ref=r.test/a/b/cache,mode=max"),
        ({"cache": True, "cache_repo": "oci:/c", "cache_ttl": "6h"}, "type=local,dest=/c,mode=max --cache-ttl 6h"),
        ({"insecure_pull": True, "push_retry": "3", "verbosity": "error"}, "--tls-verify=false --retry 3 --progress none"),
        ({"log_format": "json"}, "--progress rawjson"),
    ],
)  # fmt: skip
def test_flags(flags: dict[str, Any], words: str) -> None:
    assert words in argv(flags)


def test_a_cache_that_is_only_read() -> None:
    assert "--cache-to" not in argv({"cache": True, "no_push_cache": True})
    assert "--cache-from" not in argv({"cache": False})


@pytest.mark.parametrize(
    ("flags", "context"),
    [
        ({}, "/workspace/"),
        ({"context": "dir:///src", "context_sub_path": "app"}, "/src/app"),
        ({"context": "src"}, "src"),
        ({"context": "tar://stdin"}, "-"),
        ({"context": "tar:///x.tar.gz"}, "-"),
        ({"context": "https://h/x.tar.gz"}, "https://h/x.tar.gz"),
        ({"context": "git://h/r.git"}, "https://h/r.git"),
        ({"context": "git://h/r#refs/heads/main"}, "https://h/r.git#main"),
        ({"context": "git://h/r.git#refs/heads/main#c0ffee", "context_sub_path": "d"}, "https://h/r.git#c0ffee:d"),
        ({"context": "git://h/r.git", "git": "branch=dev,single-branch=true"}, "https://h/r.git#dev"),
        ({"context": "git://h/r.git", "context_sub_path": "d"}, "https://h/r.git#:d"),
    ],
)
def test_contexts(flags: dict[str, Any], context: str) -> None:
    job = parse_job({**TO, **flags}, {})
    assert job.context == context
    assert job.archive == (Path("/x.tar.gz") if flags.get("context") == "tar:///x.tar.gz" else None)


def test_a_token_is_lent_and_in_no_argument() -> None:
    found = argv({"context": "git://h/r.git"}, GIT_TOKEN="hidden")
    assert "--secret id=GIT_AUTH_TOKEN,env=GIT_TOKEN" in found
    assert "hidden" not in found


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"destination": ()}, "you must provide --destination, or use --no-push"),
        ({"bucket": "b"}, "--context tar://stdin"),
        ({"context": "s3://b/c.tar.gz"}, "aws s3 cp"),
        ({"context": "gs://b/c.tar.gz"}, "gsutil cat"),
        ({"context": "https://a.blob.core.windows.net/c.tar.gz"}, "az storage blob"),
        ({"context": "tar://stdin", "context_sub_path": "d"}, "--context-sub-path"),
        ({"ignore_path": ("/x",)}, "RUN --mount=type=cache"),
        ({"registry_certificate": ("h=/c",)}, "certs.d/HOST/ca.crt"),
        ({"registry_client_cert": ("h=/c,/k",)}, "client.key"),
        ({"registry_map": ("x",)}, "want REGISTRY=MIRROR"),
        ({"snapshot_mode": "none"}, "full, redo, time"),
        ({"verbosity": "loud"}, "trace, debug"),
        ({"cache": True, "no_push": True}, "--cache-repo"),
        ({"cache": True, "cache_run_layers": False}, "build without --cache"),
        ({"context": "git://h/r", "git": "insecure-skip-tls=true"}, "SSL_CERT_FILE"),
    ],
)
def test_what_is_refused_says_what_to_do(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        parse_job({**TO, **flags}, {})


def test_mirrors_and_careless_registries_are_a_registries_conf(tmp_path: Path) -> None:
    from transfer.registries_conf.files import registries_conf

    flags = {
        "registry_mirror": ("m.test:5000/hub",), "registry_map": ("ghcr.io=m.test:5000;quay.io=q.test",), "insecure": True,
        "insecure_registry": ("m.test:5000",), "skip_default_registry_fallback": True,
    }  # fmt: skip
    job = parse_job({**TO, **flags}, {"KANIKO_NO_PUSH": "true"})
    (tmp_path / "r.conf").write_text(job.registries_conf)
    conf = registries_conf({"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "r.conf"), "HOME": str(tmp_path)})
    from image.reference import Reference

    places = {name: conf.pull_places(Reference.parse(name)) for name in ("busybox", "ghcr.io/a/b:1", "r.test/a/b:1")}
    found = {name: [(place.reference.domain, place.insecure) for place in some] for name, some in places.items()}
    assert found == {
        "busybox": [("m.test:5000", True)], "ghcr.io/a/b:1": [("m.test:5000", True)], "r.test/a/b:1": [("r.test", True)],
    }  # fmt: skip
    assert "push=true" not in " ".join(job.argv)


def test_digests_are_written_for_each_destination(tmp_path: Path) -> None:
    names = ("digest_file", "image_name_with_digest_file", "image_name_tag_with_digest_file")
    flags = {"destination": ("r.test/a:1", "r.test/b:2"), **{name: str(tmp_path / name) for name in names}}
    written = {path.name: text for path, text in parse_job(flags, {}).digest_files("sha256:1")}
    assert written == {
        "digest_file": "sha256:1",
        "image_name_with_digest_file": "r.test/a@sha256:1\nr.test/b@sha256:1\n",
        "image_name_tag_with_digest_file": "r.test/a:1@sha256:1\nr.test/b:2@sha256:1\n",
    }


def test_a_job_is_done(tmp_path: Path) -> None:
    (tmp_path / "src" / "app").mkdir(parents=True)
    (tmp_path / "src" / "app" / "Dockerfile").write_text("FROM scratch\nARG A\nLABEL a=$A\nCOPY f /\n")
    (tmp_path / "src" / "app" / "f").write_text("f")
    tierce = Tierce(tmp_path / "root")
    job = (
        "executor", "--force", "--context", f"dir://{tmp_path}/src", "--context-sub-path=app", "--build-arg=A=b", "--no-push",
        "--destination=r.test/a:1", f"--tar-path={tmp_path}/a.tar", f"--digest-file={tmp_path}/out/digest", "--cleanup",
        "--snapshot-mode=redo", "--use-new-run", "--cache=false", "--skip-unused-stages=true", "-v", "debug",
    )  # fmt: skip
    done = tierce(*job)
    assert done.stderr.startswith("tierce build --build-arg A=b --tag r.test/a:1 --output type=image ")
    digest = (tmp_path / "out" / "digest").read_text()
    assert tierce("inspect", "--format", "{{index .RepoDigests 0}}", "r.test/a:1").stdout.strip().endswith(digest)
    assert (tmp_path / "a.tar").stat().st_size > 1000


@pytest.mark.peer
def test_a_job_pushes_to_a_registry_without_tls_and_keeps_its_cache_there(
    tmp_path: Path, open_registry: Registry
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "Dockerfile").write_text("FROM scratch\nCOPY f /\nCOPY f /g\n")
    (tmp_path / "src" / "f").write_text("f")
    name = open_registry.name("team/app:1")
    job = (
        "executor", "--context", tmp_path / "src", "--destination", name, "--insecure", "--cache=true", "--cache-ttl=1h",
        "--image-name-with-digest-file", tmp_path / "names",
    )  # fmt: skip
    first = Tierce(tmp_path / "one")(*job)
    assert "DONE" in first.stderr
    again = Tierce(tmp_path / "two")(*job)
    assert again.stderr.count("CACHED") == 2, str(again)
    digest = Tierce(tmp_path / "two")("digest", "--tls-verify=false", name).stdout.strip()
    assert (tmp_path / "names").read_text() == f"{name.rpartition(':')[0]}@{digest}\n"
