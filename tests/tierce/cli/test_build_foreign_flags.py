"""Flags that users of other tools bring along: each works, or is refused by a line that says what to use."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tierce.cli.build import build
from tierce.cli.build_foreign import foreign_options
from tierce.cli.clicked import ClickCommand
from tierce.cli.declare import Argument, Command, Option
from tierce.cli.kaniko import executor

BUILDX = (
    "add-host allow annotation attest build-arg build-context builder cache-from cache-to call cgroup-parent check debug "
    "detach file iidfile label load metadata-file network no-cache no-cache-filter output platform policy print progress "
    "provenance pull push quiet sbom secret server-config shm-size ssh tag target ulimit"
)
"""Of buildx's reference; ``--root`` names a daemon's socket there, and a store before the command here."""
BUILDAH = (
    "build-arg-file cache-ttl cap-add cap-drop compat-volumes cpp-flag created-annotation cw device env from group-add "
    "hooks-dir inherit-annotations inherit-labels layer-label metadata-file no-pivot omit-history retry retry-delay "
    "rewrite-timestamp save-stages sbom-image-output sbom-image-purl-output sbom-merge-strategy sbom-output "
    "sbom-purl-output sbom-scanner-command sbom-scanner-image skip-unused-stages source-date-epoch source-policy-file "
    "stage-labels transient-run-mounts unsetannotation unsetenv unsetlabel volume"
)
"""Of buildah's manual, newer than the one that is installed here."""
IMG = "build-arg cache-from cache-to file label no-cache no-console output platform tag target"
KANIKO = (
    "build-arg bucket cache cache-copy-layers cache-dir cache-repo cache-run-layers cache-ttl cleanup compressed-caching "
    "compression compression-level context context-sub-path custom-platform customPlatform destination digest-file "
    "dockerfile force force-build-metadata git ignore-path ignore-var-run image-download-retry image-fs-extract-retry "
    "image-name-tag-with-digest-file image-name-with-digest-file insecure insecure-pull insecure-registry kaniko-dir label "
    "log-format log-timestamp no-push no-push-cache oci-layout-path push-ignore-immutable-tag-errors push-retry "
    "registry-certificate registry-client-cert registry-map registry-mirror reproducible single-snapshot "
    "skip-default-registry-fallback skip-push-permission-check skip-tls-verify skip-tls-verify-pull "
    "skip-tls-verify-registry skip-unused-stages snapshot-mode snapshotMode tar-path tarPath target use-new-run verbosity "
    "whitelist-var-run"
)
"""Of its ``cmd/executor/cmd/root.go``, deprecated ones included."""


def names_of(parameters: Iterable[Option | Argument]) -> set[str]:
    options = [one for one in parameters if isinstance(one, Option)]
    return {word for option in options for word in (*option.names, *option.opposites)}


def flags_of(command: Command) -> set[str]:
    return names_of(command.parameters) | {"--help", "-h"}


def flags_of_build() -> set[str]:
    return flags_of(build) | names_of(foreign_options())


@pytest.mark.parametrize("names", [BUILDX, BUILDAH, IMG], ids=["buildx", "buildah", "img"])
def test_every_flag_is_known(names: str) -> None:
    assert {f"--{name}" for name in names.split()} - flags_of_build() == set()


def test_every_flag_of_kaniko_is_known() -> None:
    assert {f"--{name}" for name in KANIKO.split()} - flags_of(executor) == set()


@pytest.mark.peer
@pytest.mark.parametrize("tool", ["/usr/bin/docker", "podman", "buildah"])
def test_every_flag_of_an_installed_tool_is_known(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    done = subprocess.run([tool, "build", "--help"], capture_output=True, text=True, check=True)
    found = set(re.findall(r"^\s+(?:-\w, )?(--[a-z][a-z-]+)", done.stdout, re.MULTILINE))
    found |= set(re.findall(r"^\s+(-\w), --", done.stdout, re.MULTILINE))
    assert len(found) > 20
    assert found - flags_of_build() == set()


def refused() -> list[str]:
    """The hidden flags that are never, or not always, accepted."""
    return sorted(option.names[0] for option in foreign_options() if option.callback is not None)


@pytest.mark.parametrize("flag", refused())
def test_a_refusal_says_what_to_do(tmp_path: Path, flag: str) -> None:
    with pytest.raises(Exception, match=rf"^{flag}(=other)? is not supported: .{{15}}"):
        ClickCommand(build).make_context("build", [f"{flag}=other", str(tmp_path)])


@pytest.mark.parametrize(
    "flags",
    [
        ("--rm=false", "--force-rm", "--compress", "-D", "--disable-content-trust=false", "--builder", "default"),
        ("--ipc=private", "--pid", "private", "--uts=private", "--userns=container", "--skip-unused-stages=true"),
        (
            "--skip-unused-stages",
            "--all-platforms=false",
            "--identity-label=false",
            "--http-proxy=false",
            "--loglevel=3",
        ),
        ("--pull=never", "--no-hosts=false", "--pull-missing"),
        ("--pull=missing",),
    ],
)
def test_what_is_so_anyway_is_accepted(tmp_path: Path, flags: tuple[str, ...]) -> None:
    tierce = Tierce(tmp_path / "root")
    tierce("build", "--no-cache", "-o", "type=cacheonly", *flags, "-", stdin="FROM scratch\nENV A=1\n")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--platform", "linux/amd64", "--arch", "arm64"), "--platform says all that --os, --arch and --variant do"),
        (("--memory", "1k"), "memory limit of 1024 bytes is too small"),
        (("--memory-swap", "1g"), "give --memory too"),
        (("--cap-add", "FLY"), "invalid capability: 'FLY'"),
        (("--security-opt", "label=type:x"), "AppArmor and SELinux profiles are not supported"),
        (("--volume", "named:/v"), "a build has no volumes"),
        (("--volume", "/absent/x:/v"), "/absent/x does not exist"),
        (("--cache-ttl", "soon"), "soon"),
        (("--retry-delay", "soon"), "soon"),
        (("--from", "bad name"), "bad name"),
        (("--build-context", "a::b/c/d/e/f=."), "b/c/d/e/f"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_built(tmp_path: Path, flags: tuple[str, ...], problem: str) -> None:
    done = Tierce(tmp_path / "root").attempt("build", *flags, "-", stdin="FROM absent.invalid/x\nRUN x\n")
    assert done.code == 1
    assert problem in done.stderr, str(done)
    assert len(done.stderr.splitlines()) <= 8
