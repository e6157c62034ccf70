"""The plan decides without root; its order is a matter of security."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from image.errors import InvalidInput, InvalidSpec
from runner.runtime import capabilities, child, defaults, operations
from runner.runtime.cgroup_settings import settings
from runner.runtime.operations import Operation
from runner.runtime.plan import plan
from runner.runtime.privileges import Cgroups, Privileges, parse_cgroups
from runner.runtime.spec import IdMapping, Mount, NamedUser, Namespace, Process, Resources, Rlimit, Spec
from store.layers import OverlayMount
from store.linux import processes

V2 = Privileges(0, (1 << 41) - 1, initial_user_namespace=True, cgroups=Cgroups({}, "/sys/fs/cgroup"), seccomp=True)
V1 = replace(V2, cgroups=Cgroups({"memory": "/c/memory", "cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct"}))
SPEC = defaults.default_spec(
    Process(("sh", "-c", "true"), user=NamedUser("alice"), capabilities=capabilities.granted(capabilities.DEFAULT)),
    hostname="box",
)
ROOT = Path("/somewhere")


def names(steps: tuple[Operation, ...]) -> list[str]:
    return [step.name for step in steps]


def ordered(steps: list[str], *wanted: str) -> bool:
    """The first occurrences come in this order."""
    positions = [steps.index(name) for name in wanted]
    return positions == sorted(positions)


def test_order_of_dockers_container() -> None:
    steps = names(plan(SPEC, ROOT, V2))
    assert ordered(
        steps,
        "clone", "isolate_mounts", "bind_root", "mount_filesystem", "make_device", "set_hostname", "write_sysctl",
        "make_readonly", "mask_path", "pivot_root", "find_user", "start_session", "enter_directory", "load_seccomp",
        "drop_privileges", "execute",
    )  # fmt: skip
    assert steps[-1] == "execute"


def test_without_new_privileges_the_filter_comes_last() -> None:
    steps = names(plan(replace(SPEC, process=replace(SPEC.process, no_new_privileges=True)), ROOT, V2))
    assert ordered(steps, "no_new_privileges", "drop_privileges", "load_seccomp", "execute")


def test_the_cgroup_namespace_waits_for_the_parent() -> None:
    steps = names(plan(SPEC, ROOT, V2))
    assert ordered(steps, "clone", "await_parent", "unshare_cgroup")
    assert not plan(SPEC, ROOT, V2)[0].arguments[0] & processes.CLONE_NEWCGROUP  # type: ignore[operator]
    assert steps.count("await_parent") == 1


def test_a_container_without_cgroup_mount_waits_as_well() -> None:
    spec = replace(SPEC, mounts=tuple(mount for mount in SPEC.mounts if mount.type != "cgroup"))
    assert names(plan(spec, ROOT, V2)).count("await_parent") == 1


def test_sources_are_opened_before_the_root_can_hide_them() -> None:
    spec = replace(SPEC, mounts=(*SPEC.mounts, Mount("/data", "bind", "/host", ("rbind", "rro"))))
    overlay = OverlayMount(Path("/store"), ("l/a",), "u", "w", "merged")
    assert ordered(names(plan(spec, overlay, V2)), "open_source", "mount_overlay", "attach_source")


def test_overlay_words_stay_relative() -> None:
    steps = plan(SPEC, OverlayMount(Path("/store"), ("l/a", "l/b"), "x/diff", "x/work", "x/merged"), V2)
    step = next(step for step in steps if step.name == "mount_overlay")
    assert step.arguments == (b"/store", b"lowerdir=l/a:l/b,upperdir=x/diff,workdir=x/work", b"x/merged")


def test_v1_controllers_each_have_a_mount() -> None:
    steps = plan(SPEC, ROOT, V1)
    mounted = [
        step.arguments[2] for step in steps if step.name == "mount_filesystem" and step.arguments[0] == b"cgroup"
    ]
    assert mounted == [b"/sys/fs/cgroup/memory", b"/sys/fs/cgroup/cpu,cpuacct"]


def test_a_user_namespace_changes_what_it_must() -> None:
    mapping = (IdMapping(0, 1000, 1),)
    own = (*SPEC.namespaces, Namespace("user"))
    mapped = replace(SPEC, namespaces=own, uid_mappings=mapping, gid_mappings=mapping)
    overlay = OverlayMount(Path("/store"), ("l/a",), "u", "w", "merged")
    steps = plan(mapped, overlay, V2)
    assert steps[0].arguments[0] & processes.CLONE_NEWUSER  # type: ignore[operator]
    assert "bind_device" in names(steps)
    assert "make_device" not in names(steps)
    texts = [str(step) for step in steps]
    assert any("userxattr" in text for text in texts)
    assert not any("gid=5" in text for text in texts)


def test_every_step_describes_itself_and_can_be_sent() -> None:
    import marshal

    for step in plan(SPEC, ROOT, V1, network=(b"request",)):
        assert str(step)
        assert marshal.loads(marshal.dumps(step.encode())) == step.encode()


def test_every_operation_has_somebody_to_do_it() -> None:
    public = {
        name
        for name, value in vars(operations).items()
        if callable(value) and getattr(value, "__module__", "") == operations.__name__ and name[0].islower()
    }
    assert public - {"clone"} - {name for name in public if name.startswith("_")} == set(child.OPERATIONS)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, process=replace(SPEC.process, args=())),
        replace(SPEC, namespaces=(Namespace("pid"),)),
        replace(SPEC, namespaces=(Namespace("mount", "/proc/1/ns/mnt"),)),
        replace(SPEC, sysctl={"kernel.panic": "1"}),
        replace(SPEC, sysctl={"net.../../../sysrq-trigger": "b"}),
        replace(SPEC, namespaces=tuple(n for n in SPEC.namespaces if n.type != "network")),
        replace(SPEC, namespaces=tuple(n for n in SPEC.namespaces if n.type != "uts")),
        replace(SPEC, process=replace(SPEC.process, rlimits=(Rlimit("RLIMIT_MOOD", 1, 1),))),
        replace(SPEC, mounts=(Mount("/x", "", "/y"),)),
        replace(SPEC, mounts=(Mount("/x", "bind", "/y", ("bind", "size=1")),)),
    ],
    ids=[
        "no command", "no mount namespace", "joined mount namespace", "host sysctl", "sysctl path", "net sysctl",
        "hostname without uts", "unknown limit", "mount without type", "bind with data",
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(spec: Spec) -> None:
    with pytest.raises(InvalidSpec):
        plan(spec, ROOT, V2)


def test_cgroup_layouts() -> None:
    v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    named = "31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    v2 = "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert [parse_cgroups(text).layout for text in ("", named, v1 + named, v2, v1 + v2)] == [
        "none", "none", "v1", "v2", "hybrid",
    ]  # fmt: skip


def test_the_child_loads_almost_nothing() -> None:
    import os
    import subprocess
    import sys

    program = "import sys; sys.path.append(sys.argv[1]); before = set(sys.modules)\nimport runner.runtime.child\nprint(*sorted(set(sys.modules) - before))"
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", program, str(Path(child.__file__).parents[2])]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) == {
        "__future__", "_ctypes", "runner", "runner.runtime", "runner.runtime.accounts", "runner.runtime.child",
        "runner.runtime.child_process", "runner.runtime.child_root", "store", "store.linux", "store.linux.descriptors",
        "store.linux.foreign", "store.linux.mounts", "store.linux.paths", "store.linux.processes", "store.linux.routes",
        "store.linux.seccomp",
    }  # fmt: skip


@pytest.mark.parametrize("privileges", [V1, V2], ids=["v1", "v2"])
def test_limits_that_say_nothing_or_too_little(privileges: Privileges) -> None:
    assert settings(Resources(memory_reservation=0, memory_swap=0, cpu_shares=0), privileges.cgroups) == ()
    with pytest.raises(InvalidInput, match="below that of memory"):
        settings(Resources(memory_limit=64 << 20, memory_swap=32 << 20), privileges.cgroups)


def test_no_reservation_in_v2() -> None:
    found = settings(Resources(memory_reservation=-1), V2.cgroups)
    assert [(setting.file, setting.value) for setting in found] == [("memory.low", "max")]
