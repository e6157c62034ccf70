"""What a RUN may reach out of its sandbox for, and only when the caller allows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder.entitlements import parse_entitlements
from image.errors import InvalidInput
from tests.support.cli import Tierce

_INSECURE = "FROM busybox\nRUN --security=insecure {command}\n"


def printed(tierce: Tierce, dockerfile: str, *flags: str) -> list[str]:
    result = tierce("build", "--no-cache", "--progress", "plain", *flags, "-", stdin=dockerfile)
    return re.findall(r"^#\d+ \d+\.\d+ (.*)$", result.stderr, re.MULTILINE)


@pytest.mark.root
@pytest.mark.parametrize(
    ("flag", "entitlement"), [("--security=insecure", "security.insecure"), ("--network=host", "network.host")]
)
def test_a_dockerfile_can_not_help_itself(tierce_with_busybox: Tierce, flag: str, entitlement: str) -> None:
    dockerfile = f"FROM busybox AS base\nRUN {flag} true\nFROM busybox AS free\n"
    refused = tierce_with_busybox.attempt("build", "--target", "base", "-", stdin=dockerfile)
    assert refused.code == 1
    assert f"build with --allow {entitlement}" in refused.stderr
    assert f"RUN {flag} true" in refused.stderr
    tierce_with_busybox("build", "--target", "free", "-", stdin=dockerfile)
    tierce_with_busybox("build", "--target", "base", "--allow", entitlement, "-", stdin=dockerfile)


@pytest.mark.root
def test_insecure_has_every_capability_and_no_filter(tierce_with_busybox: Tierce) -> None:
    command = "grep -E 'CapEff|Seccomp:' /proc/self/status"
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    with open("/proc/self/status") as file:
        ours = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    lines = printed(tierce_with_busybox, _INSECURE.format(command=command), "--allow", "security.insecure")
    effective = int(lines[0].split()[1], 16)
    assert effective == ours & (2 ** (last + 1) - 1)
    assert lines[1].split() == ["Seccomp:", "0"]
    usual = printed(tierce_with_busybox, f"FROM busybox\nRUN {command}\n")
    assert int(usual[0].split()[1], 16) != effective
    assert usual[1].split() == ["Seccomp:", "2"]


@pytest.mark.root
def test_insecure_can_mount_and_write_kernel_settings(tierce_with_busybox: Tierce) -> None:
    command = "mkdir /m && mount -t tmpfs none /m && test -w /proc/sys/kernel && echo privileged"
    assert printed(tierce_with_busybox, _INSECURE.format(command=command), "--allow", "security.insecure") == [
        "privileged"
    ]
    assert "/m tmpfs" not in Path("/proc/self/mounts").read_text()


@pytest.mark.root
def test_insecure_is_another_step(tierce_with_busybox: Tierce) -> None:
    build = ("build", "-q", "--allow", "security.insecure", "-")
    plain = tierce_with_busybox(*build, stdin="FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /d\n").stdout
    insecure = "FROM busybox\nRUN --security=insecure cat /proc/sys/kernel/random/uuid > /d\n"
    assert tierce_with_busybox(*build, stdin=insecure).stdout != plain


def test_what_is_parsed() -> None:
    assert parse_entitlements(["network.host,security.insecure", "network.host"]) == {
        "network.host", "security.insecure",
    }  # fmt: skip
    with pytest.raises(InvalidInput, match=r"there are network\.host, security\.insecure"):
        parse_entitlements(["device"])
