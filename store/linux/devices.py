"""Which devices the processes of a cgroup v2 may open: an eBPF program says it. bpf(2)."""

from __future__ import annotations

import posix

from store.linux.foreign import address, call, copy_of, u32, u64

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI = 15, 6, 2


def attach_device_filter(group: int, program: bytes) -> None:
    """Let an eBPF program decide on the devices of the cgroup v2 directory behind ``group``.

    It stays until the group is removed. Needs CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN.
    """
    instructions, licence = copy_of(program), copy_of(b"Apache-2.0\0")
    load = (
        u32(_BPF_PROG_TYPE_CGROUP_DEVICE) + u32(len(program) // 8)
        + u64(address(instructions)) + u64(address(licence)) + bytes(24)
    )  # fmt: skip
    fd = call("bpf", _BPF_PROG_LOAD, load, len(load))
    try:
        attach = u32(group) + u32(fd) + u32(_BPF_CGROUP_DEVICE) + u32(_BPF_F_ALLOW_MULTI)
        call("bpf", _BPF_PROG_ATTACH, attach, len(attach))
    finally:
        posix.close(fd)
