"""The memory of another process: process_vm_readv(2), process_vm_writev(2)."""

from __future__ import annotations

from store.linux.foreign import SyscallError, address, call, copy_of, space, u64

_EFAULT = 14


def read_memory(pid: int, where: int, size: int) -> bytes:
    """Up to ``size`` bytes: what can be read in one piece."""
    found = space(size)
    local, remote = u64(address(found)) + u64(size), u64(where) + u64(size)
    read = call("process_vm_readv", pid, local, 1, remote, 1, 0)
    return bytes(found)[:read]


def write_memory(pid: int, where: int, data: bytes) -> None:
    """All of it, or EFAULT."""
    source = copy_of(data)
    local, remote = u64(address(source)) + u64(len(data)), u64(where) + u64(len(data))
    if call("process_vm_writev", pid, local, 1, remote, 1, 0) != len(data):
        raise SyscallError(_EFAULT, "process_vm_writev")
