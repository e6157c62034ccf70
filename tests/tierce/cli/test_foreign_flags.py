"""Each flag that skopeo has works, or is refused in a line that says what to do: by skopeo's own lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from image.digest import Digest
from tests.support.process import command, need
from tests.support.tiny_image import tiny_image
from tests.tierce.conftest import Stock
from tierce.cli.commands import COMMANDS
from tierce.cli.declare import Argument, Entry, Option
from tierce.cli.refused import refused_command

_FLAG = re.compile(r"^ {2,}(?:(-\w), )?(--[a-z][a-z.-]*)", re.MULTILINE)
_NEWER = {
    "copy": ("--dest-force-compress-format", "--image-parallel-copies", "--retry-delay", "--sign-by-sigstore",
             "--sign-by-sq-fingerprint"),
    "inspect": ("--retry-delay",), "delete": ("--retry-delay",), "list-tags": ("--retry-delay",),
}  # fmt: skip
"""What skopeo has since the version that distributions have."""

Invoke = Callable[..., tuple[int, str, str]]


def flags_of(parameters: Iterable[Option | Argument]) -> set[str]:
    options = [one for one in parameters if isinstance(one, Option)]
    return {name for option in options for name in (*option.names, *option.opposites)} | {"--help"}


def skopeo_s(*words: str) -> set[str]:
    listed = _FLAG.findall(command([need("skopeo"), *words, "--help"]))
    assert listed
    return {name for pair in listed for name in pair if name} - {"-h"}


@pytest.mark.peer
@pytest.mark.parametrize("name", ["copy", "delete", "inspect", "list-tags", "login", "logout", "sync"])
def test_every_flag_of_a_command(name: str) -> None:
    found = COMMANDS.entries[name]
    assert isinstance(found, Entry)
    assert skopeo_s(name) | set(_NEWER.get(name, ())) <= flags_of(found.load().parameters)


@pytest.mark.peer
def test_every_command_and_what_comes_before_one() -> None:
    listed = re.findall(r"^  ([a-z-]+)  ", command([need("skopeo"), "--help"]), re.MULTILINE)
    assert "copy" in listed
    unknown = set(listed) - COMMANDS.entries.keys() - {"generate-sigstore-key"}
    assert all(map(refused_command, unknown)), unknown
    assert skopeo_s() - {"--registries"} <= flags_of(COMMANDS.options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--override-arch", "arm64", "copy"),
            "--override-arch is not supported: name the image by --platform OS/ARCH",
        ),
        (
            ("copy", "--sign-by", "key", "a", "b"),
            "--sign-by is not supported: Tierce signs nothing: sign the copy with",
        ),
        (("copy", "--encrypt-layer", "0", "a", "b"), "--encrypt-layer is not supported: layers are neither encrypted"),
        (("copy", "--dest-decompress", "a", "b"), "--dest-decompress is not supported: copy to docker-archive:"),
        (("copy", "--multi-arch", "index-only", "a", "b"), "--multi-arch index-only is not supported"),
        (("copy", "--multi-arch", "all", "--platform", "linux", "a", "b"), "--multi-arch and --platform are mutually"),
        (("delete", "--daemon-host", "x", "a"), "--daemon-host is not supported: images of a docker daemon"),
        (("sync", "--format", "oci", "a", "b"), "--format is not supported: sync keeps digests"),
        (("standalone-sign", "--x", "a", "b"), "unknown command: tierce standalone-sign: images are signed by a tool"),
        (
            ("inspect", "--creds", "a:b", "--no-creds", "docker://x"),
            "--creds, --username, --registry-token, --no-creds",
        ),
    ],
)
def test_refused(words: tuple[str, ...], said: str, invoke: Invoke) -> None:
    code, out, err = invoke(*words)
    assert (code, out) == (1, "")
    assert err.startswith(f"tierce: {said}")
    assert err.count("\n") <= 2


def test_what_asks_for_what_is_done_anyway(stock: Stock, invoke: Invoke, tmp_path: Path) -> None:
    stock.add("app")
    words = (
        "--dest-precompute-digests",
        "--dest-oci-accept-uncompressed-layers",
        "--dest-compress",
        "--multi-arch=all",
    )
    code, _, err = invoke("--insecure-policy", "copy", "-q", *words, "app", f"oci:{tmp_path}/layout")
    assert (code, err) == (0, "")


def test_layouts_share_their_blobs(stock: Stock, invoke: Invoke, tmp_path: Path) -> None:
    """skopeo reads such a layout when it is told where its blobs are."""
    target = stock.add("app")
    shared = tmp_path / "shared"
    for name in ("one", "two"):
        done = invoke("copy", "-q", "--dest-shared-blob-dir", str(shared), "app", f"oci:{tmp_path}/{name}:app")
        assert done == (0, "", "")
        assert {path.name for path in (tmp_path / name).iterdir()} == {"index.json", "oci-layout"}
    assert (shared / "sha256" / target.digest.encoded).exists()
    code, out, _ = invoke("inspect", "--shared-blob-dir", str(shared), f"oci:{tmp_path}/two:app")
    assert (code, json.loads(out)["Digest"]) == (0, str(target.digest))
    back = invoke("copy", "-q", "--src-shared-blob-dir", str(shared), f"oci:{tmp_path}/one:app", f"dir:{tmp_path}/dir")
    assert back == (0, "", "")


def test_manifest_digest(invoke: Invoke, tmp_path: Path) -> None:
    raw = tiny_image().manifest.raw
    (tmp_path / "m").write_bytes(raw)
    assert invoke("manifest-digest", str(tmp_path / "m")) == (0, f"{Digest.of(raw)}\n", "")
    (tmp_path / "m").write_bytes(b"{}")
    assert invoke("manifest-digest", str(tmp_path / "m"))[0] == 1
