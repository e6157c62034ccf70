"""The same inputs give the same digest on any host and for any user; and a build can be checked for it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from builder.differences import FileFacts, config_differences, layer_differences, order_difference
from store.compression import compressor
from tests.support.cli import Tierce

DOCKERFILE = """\
FROM busybox AS tools
COPY tree/ /in/
RUN mkdir -p /out/deep && cp -r /in /out/deep && touch /out/now && env | sort > /out/env && hostname > /out/host && umask > /out/umask
FROM busybox
WORKDIR /work/here
COPY --from=tools /out /out
COPY . /all/
ADD tree/z /added/
RUN echo $((1 + 1)) > /two && ln -s /two /link && rm /out/now
LABEL a=b
CMD ["true"]
"""
NAMES = ("tree/a", "tree/z", "tree/m/deep/file", "tree/m/other", "top")


def write(directory: Path, *, backwards: bool, mode: int, moment_s: int) -> Path:
    """The same context, made in another order, at another time, with another way of making directories."""
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    for name in reversed(NAMES) if backwards else NAMES:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        path.chmod(0o640)
    for path in (directory, *directory.rglob("*")):
        if path.is_dir():
            path.chmod(mode)
        os.utime(path, (moment_s, moment_s))
        moment_s += 7
    return directory


@pytest.mark.root
def test_the_digest_does_not_depend_on_host_or_user(tmp_path: Path, busybox_archive: Path) -> None:
    first = write(tmp_path / "one", backwards=False, mode=0o755, moment_s=1_000_000)
    second = write(tmp_path / "two", backwards=True, mode=0o755, moment_s=1_900_000_000)
    plain = build_digest(
        Tierce(tmp_path / "root1"), busybox_archive, first, "022", {"TZ": "UTC", "HOME": "/root"}, "one-host"
    )
    other = build_digest(
        Tierce(tmp_path / "another" / "place"), busybox_archive, second, "077",
        {"TZ": "Asia/Tokyo", "HOME": "/nonexistent", "USER": "somebody", "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
        "other-host",
    )  # fmt: skip
    assert plain == other


def build_digest(
    tierce: Tierce, busybox_archive: Path, context: Path, umask: str, environ: Mapping[str, str], hostname: str
) -> str:
    tierce.root.parent.mkdir(parents=True, exist_ok=True)
    tierce("load", "--input", busybox_archive)
    metadata = tierce.root / "metadata.json"
    argv = tierce.argv("build", "--network=none", "--timestamp=1500000000", "--metadata-file", metadata, "-q", ".")
    script = 'umask "$1"; hostname "$2"; shift 2; exec "$@"'
    subprocess.run(
        ["unshare", "--uts", "sh", "-c", script, "sh", umask, hostname, *argv],
        check=True, cwd=context, env=tierce.env() | dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    digest: str = json.loads(metadata.read_bytes())["containerimage.digest"]
    return digest


@pytest.mark.root
@pytest.mark.parametrize("seconds", ["0", "1500000000"])
def test_an_epoch_is_part_of_what_is_cached(tierce_with_busybox: Tierce, tmp_path: Path, seconds: str) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /now\n")
    tierce("build", "--network=none", "-q", tmp_path)
    plain = tierce("build", "--network=none", "-q", tmp_path).stdout
    clamped = tierce("build", "--network=none", "-q", f"--timestamp={seconds}", tmp_path).stdout
    tierce("builder", "prune", "-a", "-f")
    assert tierce("build", "--network=none", "-q", f"--timestamp={seconds}", tmp_path).stdout == clamped != plain


@pytest.mark.root
def test_base_layers_keep_their_digests(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    tierce = tierce_with_busybox
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /now\n")
    tierce("build", "--network=none", "-q", "--timestamp=0", "-t", "app", tmp_path)
    layers = [
        json.loads(tierce("inspect", "--format={{json .RootFS.Layers}}", name).stdout) for name in ("busybox", "app")
    ]
    assert layers[1][: len(layers[0])] == layers[0]


@pytest.mark.root
@pytest.mark.parametrize(("flags", "words", "level", "count"), [
    ((), "", None, 2), (("--squash",), "", None, 1), ((), ",compression=gzip,compression-level=2", 2, 2),
])  # fmt: skip
def test_layers_are_compressed_by_what_no_processor_changes(
    tierce_with_busybox: Tierce, tmp_path: Path, flags: tuple[str, ...], words: str, level: int | None, count: int
) -> None:
    """On this machine ISA-L gives the same bytes every time; on an older processor it would not."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /a\nCOPY Dockerfile /b\n")
    archive = tmp_path / "oci.tar"
    tierce_with_busybox("build", "--timestamp=1500000000", *flags, "-o", f"type=oci,dest={archive}{words}", tmp_path)
    blobs = [data for data in _blobs(archive) if data.startswith(b"\x1f\x8b")]
    assert len(blobs) == count
    for blob in blobs:
        codec = compressor("gzip", level, portable=True)
        assert blob == codec.compress(gzip.decompress(blob)) + codec.flush()


def _blobs(archive: Path) -> Iterator[bytes]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith("blobs/"):
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()


@pytest.mark.root
def test_a_reproducible_build_is_confirmed(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    context = write(tmp_path / "context", backwards=False, mode=0o755, moment_s=5)
    done = tierce_with_busybox(
        "build", "--network=none", "--progress=none", "--timestamp=1", "--verify-reproducible", "-t", "app", context
    )
    assert done.stderr.strip() == "reproducible: a second build without cache gave the same"
    assert {path.name for path in (tierce_with_busybox.root / "trash").iterdir()} == set()
    tierce_with_busybox("system", "check")


@pytest.mark.root
def test_what_differs_is_shown_file_by_file(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    uuid = "/proc/sys/kernel/random/uuid"
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nRUN cat {uuid} > /content; touch /$(cat {uuid}); echo same > /same\nRUN sleep 1; echo fine > /fine\n"
    )
    done = tierce_with_busybox.attempt(
        "build", "--network=none", "--progress=none", "--timestamp=1", "--verify-reproducible", tmp_path
    )
    assert done.code == 1
    assert "/content: content " in done.stderr
    assert "only in the first build" in done.stderr
    assert "only in the second build" in done.stderr
    assert "/same" not in done.stderr.replace("> /same", "")
    assert "layer 2" not in done.stderr
    assert "config rootfs.diff_ids[1]: " in done.stderr
    assert "not reproducible: " in done.stderr.splitlines()[-1]


@pytest.mark.root
def test_times_differ_without_a_timestamp(tierce_with_busybox: Tierce, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 1.1; echo 1 > /one\n")
    done = tierce_with_busybox.attempt("build", "--network=none", "--progress=none", "--verify-reproducible", tmp_path)
    assert done.code == 1
    assert "/one: mtime " in done.stderr
    assert "config created: " in done.stderr


# The comparison alone


FACTS = FileFacts("file", "644", "0:0", 1, "0", "", "", "abc")


def test_layers_are_compared_by_every_fact() -> None:
    other = FileFacts("file", "600", "1:0", 1, "5", "", "", "")
    assert list(layer_differences({"/a": FACTS, "/b": FACTS}, {"/a": other, "/c": FACTS})) == [
        "/a: mode 644 != 600, owner 0:0 != 1:0, mtime 0 != 5, content abc != none",
        "/b: only in the first build",
        "/c: only in the second build",
    ]


def test_an_order_is_a_difference_too() -> None:
    assert order_difference({"/a": FACTS, "/b": FACTS}, {"/b": FACTS, "/a": FACTS})
    assert not order_difference({"/a": FACTS}, {"/a": FACTS})


def test_configs_are_compared_by_member() -> None:
    first = json.dumps({"config": {"Env": ["A=1", "B=2"], "User": "x"}, "same": [1], "history": [1, 2]}).encode()
    second = json.dumps({"config": {"Env": ["A=1", "B=3"]}, "same": [1], "history": [1]}).encode()
    assert list(config_differences(first, second)) == [
        'config.Env[1]: "B=2" != "B=3"',
        'config.User: "x" != null',
        "history: [1, 2] != [1]",
    ]
