"""Runtime configurations: ours there and back, runc's in, hostile ones out."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image.errors import InvalidInput, InvalidSpec
from runner.runtime import capabilities, defaults
from runner.runtime.config_encode import encode_spec
from runner.runtime.config_json import decode_spec
from runner.runtime.spec import (
    Capabilities,
    Device,
    DeviceRule,
    IdMapping,
    Mount,
    NamedUser,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Seccomp,
    SeccompArgument,
    SeccompRule,
    Spec,
    User,
)

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
_texts = st.lists(_text, max_size=3).map(tuple)
_u32 = st.integers(0, 2**32 - 1)

_processes = st.builds(
    Process,
    args=_texts,
    env=st.lists(_text.map("A={}".format), max_size=3).map(tuple),
    cwd=_text.map(lambda text: f"/{text}"),
    user=st.builds(User, uid=_u32, gid=_u32, umask=st.none() | st.integers(0, 0o777), additional_gids=st.just((5, 6))),
    terminal=st.booleans(),
    console_size=st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999)),
    capabilities=st.builds(Capabilities, _texts, _texts, _texts, _texts, _texts),
    rlimits=st.lists(
        st.builds(Rlimit, _text, _u32, st.integers(0, 2**64 - 1)), max_size=2, unique_by=lambda limit: limit.type
    ).map(tuple),
    no_new_privileges=st.booleans(),
    oom_score_adj=st.none() | st.integers(-1000, 1000),
)
_specs = st.builds(
    Spec,
    process=_processes,
    mounts=st.lists(st.builds(Mount, _text, _text, _text, _texts), max_size=2).map(tuple),
    hostname=_text,
    namespaces=st.just((Namespace("pid"), Namespace("network", "/run/netns/x"))),
    devices=st.lists(st.builds(Device, _text, st.sampled_from("cbup"), _u32, _u32, st.integers(0, 0o777)), max_size=2).map(tuple),
    masked_paths=_texts,
    readonly_paths=_texts,
    sysctl=st.dictionaries(_text, _text, max_size=2),
    seccomp=st.none()
    | st.just(
        Seccomp(
            "SCMP_ACT_ERRNO", 1, ("SCMP_ARCH_X86",), (SeccompRule(("a",), "SCMP_ACT_ALLOW", None, (SeccompArgument(1, 2**63, "X", 3),)),)
        )
    ),
    resources=st.builds(
        Resources,
        devices=st.just((DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3, access="r"))),
        memory_limit=st.none() | st.integers(-1, 2**62),
        cpu_quota_us=st.none() | _u32,
        pids_limit=st.none() | st.integers(-1, 9999),
    ),
    uid_mappings=st.just((IdMapping(0, 1000, 1),)),
    annotations=st.dictionaries(_text, _text, max_size=2),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spec=_specs)
def test_there_and_back(spec: Spec) -> None:
    assert decode_spec(encode_spec(spec)) == spec


def test_dockers_container_can_be_written_and_read() -> None:
    process = Process(("true",), user=User(), capabilities=capabilities.granted(capabilities.DEFAULT))
    spec = defaults.default_spec(process, hostname="box")
    read = decode_spec(encode_spec(spec))
    assert isinstance(read.seccomp, Seccomp)
    assert replace(read, seccomp=None) == replace(spec, seccomp=None)


def test_a_user_by_name_cannot_be_written() -> None:
    with pytest.raises(InvalidInput, match="alice"):
        encode_spec(Spec(Process(("true",), user=NamedUser("alice"))))


@pytest.mark.peer
def test_reads_what_runc_writes(tmp_path: Path) -> None:
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
    spec = decode_spec((tmp_path / "config.json").read_bytes())
    assert spec.process.args == ("sh",)
    assert [mount.destination for mount in spec.mounts] == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup",
    ]  # fmt: skip
    assert set(spec.masked_paths) <= {*defaults.MASKED_PATHS}
    assert spec.readonly_paths == defaults.READONLY_PATHS


def _document(**changes: Any) -> bytes:
    base: dict[str, Any] = {"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["sh"]}, "root": {"path": "rootfs"}}
    return json.dumps(base | changes).encode()


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", ""),
        (b"[]", ""),
        (b'{"process":1,"process":2}', ""),
        (b"[" * 100_000, ""),
        (_document(root=None), "root"),
        (_document(process={"args": ["sh"]}), "process.cwd"),
        (_document(process={"cwd": "relative", "args": ["sh"]}), "process.cwd"),
        (_document(process={"cwd": "/", "args": ["a\0b"]}), "process.args"),
        (_document(process={"cwd": "/", "user": {"uid": -1}}), "process.user.uid"),
        (_document(process={"cwd": "/", "user": {"uid": True}}), "process.user.uid"),
        (_document(process={"cwd": "/", "user": {"umask": -1}}), "process.user.umask"),
        (_document(process={"cwd": "/", "user": {"additionalGids": [5, -5]}}), "process.user.additionalGids[1]"),
        (_document(process={"cwd": "/", "env": ["A=b", "WORD"]}), "process.env"),
        (_document(process={"cwd": "/", "env": ["=b"]}), "process.env"),
        (_document(process={"cwd": "/", "rlimits": [{"type": "RLIMIT_CORE"}] * 2}), "process.rlimits"),
        (_document(linux={"rootfsPropagation": "moon"}), "linux.rootfsPropagation"),
        (_document(process={"cwd": "/", "selinuxLabel": "x"}), "process.selinuxLabel"),
        (_document(hooks={"prestart": [{"path": "true"}]}), "hooks.prestart[0].path"),
        (_document(hooks={"poststop": [{"path": "/bin/true", "timeout": 0}]}), "hooks.poststop[0].timeout"),
        (_document(linux={"namespaces": [{"type": "pid"}, {"type": "pid"}]}), "linux.namespaces"),
        (_document(linux={"namespaces": [{"type": "moon"}]}), "linux.namespaces"),
        (_document(linux={"devices": [{"type": "x", "path": "/dev/x"}]}), "linux.devices[0].type"),
        (_document(mounts=[{"destination": "/x"}, {"type": "tmpfs"}]), "mounts[1].destination"),
        (_document(linux={"seccomp": {"defaultAction": "A", "syscalls": [{"names": "x"}]}}), "linux.seccomp.syscalls[0].names"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value or "document",
)  # fmt: skip
def test_bad_documents_name_the_field(raw: bytes, path: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        decode_spec(raw)
    assert caught.value.path == path
