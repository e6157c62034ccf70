"""System calls that Python's ``os`` lacks: the only file of Tierce that touches ctypes.

Serves two masters. The storage and the runner import it as ``store.kernel``; the process
that becomes a container loads it in a bare interpreter (``python -I -S``), so it imports
nothing but ``sys``, ``posix`` and ``_ctypes``, each of which costs microseconds.

One function a system call. Paths are bytes, descriptors come back close-on-exec, and every
failure is a ``SyscallError`` (an ``OSError``) that knows the call and the path. Foreign
functions keep the interpreter lock: a raw ``clone`` is safe in a process with one thread,
and none of the others blocks for long, except ``poll``.
"""

from __future__ import annotations

import _ctypes
import posix
import sys

# mount(2) flags
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# umount2(2) flags
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# clone(2), unshare(2), setns(2)
CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
SIGCHLD = 17

# open_tree(2), move_mount(2), mount_setattr(2)
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME_MASK = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
MOUNT_ATTR_IDMAP = 0x00100000

# openat2(2)
O_PATH = 0x200000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

KEYCTL_JOIN_SESSION_KEYRING = 1

POLLIN = 1
POLLERR = 8
POLLHUP = 16

# ioctl(2) requests of terminals
TIOCSCTTY = 0x540E
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSWINSZ = 0x5414

EINTR = 4
ENOENT = 2
_EFAULT = 14
_EINVAL = 22

# Numbers that differ between architectures; from 424 on they are the same everywhere.
_NUMBERS = {
    "x86_64": {
        "clone": 56,
        "pivot_root": 155,
        "keyctl": 250,
        "seccomp": 317,
        "rt_sigaction": 13,
        "bpf": 321,
        "sched_setattr": 314,
        "ioprio_set": 251,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "statx": 332,
        "newfstatat": 262,
    },
    "aarch64": {
        "clone": 220,
        "pivot_root": 41,
        "keyctl": 219,
        "seccomp": 277,
        "rt_sigaction": 134,
        "bpf": 280,
        "sched_setattr": 274,
        "ioprio_set": 30,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "statx": 291,
        "newfstatat": 79,
    },
}.get(posix.uname().machine, {})
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_CLOSE_RANGE = 436
_OPENAT2 = 437
_MOUNT_SETATTR = 442

_OPEN_TREE_CLOEXEC = 0o2000000
_CLOSE_RANGE_CLOEXEC = 4
_AF_NETLINK = 16
_SOCK_RAW_CLOEXEC = 3 | 0o2000000
_NLMSG_ERROR = 2
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_CAPABILITY_VERSION_3 = 0x20080522
_HIGHEST_SIGNAL = 64
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI = 15, 6, 2


class SyscallError(OSError):
    """A system call failed: ``errno``, ``strerror``, ``filename`` as for OSError, and ``syscall``."""

    def __init__(self, errno: int, syscall: str, path: str = "") -> None:
        super().__init__(errno, posix.strerror(errno), path or None)
        self.syscall = syscall

    def __str__(self) -> str:
        return f"{self.syscall}{f' {self.filename}' if self.filename else ''}: {posix.strerror(self.errno or 0)}"


TYPE_CHECKING = False
if TYPE_CHECKING:  # the checker wants a parameter, which the class does not take when it runs
    from typing import Any

    _Simple = _ctypes._SimpleCData[Any]
else:
    _Simple = _ctypes._SimpleCData


class _Int(_Simple):
    _type_ = "i"


class _Long(_Simple):
    _type_ = "l"


class _UnsignedLong(_Simple):
    _type_ = "L"


class _Bytes(_Simple):
    _type_ = "z"


class _Pointer(_Simple):
    _type_ = "P"


class _Byte(_Simple):
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    """C calling convention, keeps the interpreter lock, saves errno."""

    _flags_ = 1 | 4 | 8
    _restype_ = _Long


class _PointerFunction(_ctypes.CFuncPtr):
    """For functions of libraries that return a pointer; lets other threads run."""

    _flags_ = 1 | 8
    _restype_ = _Pointer


class _TextFunction(_ctypes.CFuncPtr):
    """For functions of libraries that return a C string; lets other threads run."""

    _flags_ = 1 | 8
    _restype_ = _Bytes


class _WorkFunction(_ctypes.CFuncPtr):
    """For functions of libraries that take milliseconds; lets other threads run."""

    _flags_ = 1 | 8
    _restype_ = _Int


class _IntFunction(_ctypes.CFuncPtr):
    """As _Function, for functions whose result is a C int (the upper half is undefined)."""

    _flags_ = 1 | 4 | 8
    _restype_ = _Int


_RTLD_NOW = 2
_libc = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]  # None is this program and its libc


def _bind(name: str, *argtypes: type) -> _IntFunction:
    function = _IntFunction(_ctypes.dlsym(_libc, name))
    function.argtypes = argtypes
    return function


_mount = _bind("mount", _Bytes, _Bytes, _Bytes, _UnsignedLong, _Bytes)
_umount2 = _bind("umount2", _Bytes, _Int)
_unshare = _bind("unshare", _Int)
_setns = _bind("setns", _Int, _Int)
_prctl = _bind("prctl", _Int, _UnsignedLong, _UnsignedLong, _UnsignedLong, _UnsignedLong)
_capset = _bind("capset", _Bytes, _Bytes)
_sethostname = _bind("sethostname", _Bytes, _UnsignedLong)
_setdomainname = _bind("setdomainname", _Bytes, _UnsignedLong)
_personality = _bind("personality", _UnsignedLong)
_prlimit = _bind("prlimit", _Int, _Int, _Bytes, _Pointer)
_ioctl = _bind("ioctl", _Int, _UnsignedLong, _Pointer)
_poll = _bind("poll", _Pointer, _UnsignedLong, _Int)
_socket = _bind("socket", _Int, _Int, _Int)
_sendmsg = _bind("sendmsg", _Int, _Bytes, _Int)
_sigprocmask = _bind("sigprocmask", _Int, _Bytes, _Pointer)
_getxattr = _bind("getxattr", _Bytes, _Bytes, _Pointer, _UnsignedLong)
_lgetxattr = _bind("lgetxattr", _Bytes, _Bytes, _Pointer, _UnsignedLong)
_XATTR_BUFFER = (_Byte * 256)()
_syscall = _Function(_ctypes.dlsym(_libc, "syscall"))
"""Untyped on purpose: its arguments differ by call, each below passes ints, bytes or None."""


def _fail(syscall: str, path: bytes | None = None) -> SyscallError:
    """The error of the call that has just failed in this thread."""
    where = "" if path is None else path.decode("utf-8", "surrogateescape")
    return SyscallError(_ctypes.get_errno(), syscall, where)


def _number(name: str) -> int:
    try:
        return _NUMBERS[name]
    except KeyError:
        raise SyscallError(38, name) from None  # ENOSYS: an architecture we have no numbers for


def _long(value: int) -> _Long:
    return _Long(value)


def _buffer(data: bytes) -> _ctypes.Array[_Byte]:
    """A copy of ``data`` whose address can stand in a structure while the object lives."""
    return (_Byte * len(data)).from_buffer_copy(data)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _u64(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)


# --- mounts ---------------------------------------------------------------------------


def mount(source: bytes | None, target: bytes, fstype: bytes | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2). ``data`` and the names together stay below one page (4096 bytes)."""
    if _mount(source, target, fstype, flags, data) < 0:
        raise _fail("mount", target)


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2). EINVAL means: not a mount point."""
    if _umount2(target, flags) < 0:
        raise _fail("umount2", target)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    if _syscall(_long(_number("pivot_root")), new_root, put_old) < 0:
        raise _fail("pivot_root", new_root)


def open_tree(directory: int, path: bytes, flags: int) -> int:
    """A descriptor of a mount at ``path``; with OPEN_TREE_CLONE a detached copy (Linux 5.2)."""
    tree: int = _syscall(_long(_OPEN_TREE), _long(directory), path, _long(flags | _OPEN_TREE_CLOEXEC))
    if tree < 0:
        raise _fail("open_tree", path)
    return tree


def move_mount(tree: int, target: int) -> None:
    """Attach the detached mount ``tree`` on what the descriptor ``target`` refers to."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    if _syscall(_long(_MOVE_MOUNT), _long(tree), b"", _long(target), b"", _long(flags)) < 0:
        raise _fail("move_mount")


def mount_setattr(mount_fd: int, *, set_: int, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """Change attributes of a mount in one step, keeping those not named (Linux 5.12)."""
    attributes = _u64(set_) + _u64(clear) + _u64(propagation) + _u64(0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _syscall(_long(_MOUNT_SETATTR), _long(mount_fd), b"", _long(flags), attributes, _long(len(attributes))) < 0:
        raise _fail("mount_setattr")


# --- namespaces and processes -----------------------------------------------------------


def unshare(flags: int) -> None:
    """unshare(2): new namespaces for the calling thread."""
    if _unshare(flags) < 0:
        raise _fail("unshare")


def setns(fd: int, nstype: int) -> None:
    """setns(2): move the calling thread into the namespace behind ``fd``."""
    if _setns(fd, nstype) < 0:
        raise _fail("setns")


def clone(flags: int) -> int:
    """Fork with new namespaces: the child's pid, or 0 in the child.

    Only for a process with one thread. No at-fork handler runs, so the child should do
    little and end in exec or ``_exit``.
    """
    pid: int = _syscall(_long(_number("clone")), _long(flags | SIGCHLD), _long(0), _long(0), _long(0), _long(0))
    if pid < 0:
        raise _fail("clone")
    return pid


def prctl(option: int, argument: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """prctl(2) with numeric arguments."""
    result: int = _prctl(option, argument, third, fourth, fifth)
    if result < 0:
        raise _fail(f"prctl {option}")
    return result


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of this thread, each a mask with bit N for capability N."""
    low, high = (b"".join(_u32(mask >> shift & 0xFFFFFFFF) for mask in (effective, permitted, inheritable))
                 for shift in (0, 32))  # fmt: skip
    if _capset(_u32(_CAPABILITY_VERSION_3) + _u32(0), low + high) < 0:
        raise _fail("capset")


def prlimit(resource: int, soft: int, hard: int) -> None:
    """Set a resource limit of this process; both values unsigned, 2**64-1 is no limit."""
    if _prlimit(0, resource, _u64(soft) + _u64(hard), None) < 0:
        raise _fail("prlimit")


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    if _sethostname(name, len(name)) < 0:
        raise _fail("sethostname")


def setdomainname(name: bytes) -> None:
    """setdomainname(2): the NIS domain name of the uts namespace."""
    if _setdomainname(name, len(name)) < 0:
        raise _fail("setdomainname")


def personality(persona: int) -> None:
    """personality(2)."""
    if _personality(persona) < 0:
        raise _fail("personality")


def join_session_keyring(name: bytes) -> None:
    """Replace the session keyring, so that keys of the caller are not seen."""
    if _syscall(_long(_number("keyctl")), _long(KEYCTL_JOIN_SESSION_KEYRING), name) < 0:
        raise _fail("keyctl")


def load_seccomp(program: bytes, flags: int = 0) -> None:
    """Install a filter of ``struct sock_filter`` records, 8 bytes each.

    Needs no_new_privs or CAP_SYS_ADMIN.
    """
    buffer = _buffer(program)
    header = _u64(len(program) // 8) + _u64(_ctypes.addressof(buffer))
    if _syscall(_long(_number("seccomp")), _long(SECCOMP_SET_MODE_FILTER), _long(flags), header) < 0:
        raise _fail("seccomp")


def load_seccomp_listener(program: bytes) -> int:
    """Install a filter whose SECCOMP_RET_USER_NOTIF calls wait for the descriptor that this returns.

    Only one filter of a task may have a listener (EBUSY). Calls wait killably once they were
    received where the kernel can (Linux 5.19), so that a signal does not repeat their effects.
    """
    buffer = _buffer(program)
    header = _u64(len(program) // 8) + _u64(_ctypes.addressof(buffer))
    killable = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    for flags in (killable, SECCOMP_FILTER_FLAG_NEW_LISTENER):
        fd: int = _syscall(_long(_number("seccomp")), _long(SECCOMP_SET_MODE_FILTER), _long(flags), header)
        if fd >= 0:
            return fd
        if _ctypes.get_errno() != _EINVAL:
            break
    raise _fail("seccomp")


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Up to ``size`` bytes of another process (process_vm_readv): what can be read in one piece."""
    buffer = (_Byte * size)()
    local = _u64(_ctypes.addressof(buffer)) + _u64(size)
    remote = _u64(address) + _u64(size)
    number = _long(_number("process_vm_readv"))
    read: int = _syscall(number, _long(pid), local, _long(1), remote, _long(1), _long(0))
    if read < 0:
        raise _fail("process_vm_readv")
    return bytes(buffer)[:read]


def write_memory(pid: int, address: int, data: bytes) -> None:
    """Write into another process (process_vm_writev), all or EFAULT."""
    buffer = _buffer(data)
    local = _u64(_ctypes.addressof(buffer)) + _u64(len(data))
    remote = _u64(address) + _u64(len(data))
    number = _long(_number("process_vm_writev"))
    written: int = _syscall(number, _long(pid), local, _long(1), remote, _long(1), _long(0))
    if written < 0:
        raise _fail("process_vm_writev")
    if written != len(data):
        raise SyscallError(_EFAULT, "process_vm_writev")


def statx(directory: int, path: bytes, flags: int, mask: int) -> bytes:
    """The ``struct statx`` (256 bytes) of a path, which tells the time of birth too."""
    buffer = (_Byte * 256)()
    address = _Pointer(_ctypes.addressof(buffer))
    if _syscall(_long(_number("statx")), _long(directory), path, _long(flags), _long(mask), address) < 0:
        raise _fail("statx", path)
    return bytes(buffer)


def get_xattr(path: bytes, name: bytes, *, follow: bool) -> bytes | None:
    """An attribute of at most 255 bytes; None when there is none, or no such file. Cheaper than an exception."""
    size: int = (_getxattr if follow else _lgetxattr)(path, name, _ctypes.addressof(_XATTR_BUFFER), 255)
    return bytes(_XATTR_BUFFER)[:size] if size > 0 else None


def fstatat(directory: int, path: bytes, flags: int) -> bytes:
    """``struct stat`` as the kernel has it on this architecture."""
    buffer = (_Byte * (144 if _NUMBERS.get("newfstatat") == 262 else 128))()
    address = _Pointer(_ctypes.addressof(buffer))
    if _syscall(_long(_number("newfstatat")), _long(directory), path, address, _long(flags)) < 0:
        raise _fail("newfstatat", path)
    return bytes(buffer)


def seccomp_has_action(action: int) -> bool:
    """Whether the kernel knows a filter's return action; False also without seccomp."""
    result: int = _syscall(_long(_number("seccomp")), _long(SECCOMP_GET_ACTION_AVAIL), _long(0), _u32(action))
    return result == 0


def reset_signals() -> None:
    """Default action for every signal and an empty mask: exec passes on ignored and blocked ones."""
    default = bytes(32)  # struct sigaction of the kernel; the C library's refuses to touch 32 and 33
    for signal in range(1, _HIGHEST_SIGNAL + 1):
        _syscall(_long(_number("rt_sigaction")), _long(signal), default, None, _long(8))
    if _sigprocmask(2, bytes(128), None) < 0:  # 2 is SIG_SETMASK
        raise _fail("sigprocmask")


def attach_device_filter(group: int, program: bytes) -> None:
    """Let an eBPF program decide on the devices of the cgroup v2 directory behind ``group``.

    It stays until the group is removed. Needs CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN.
    """
    instructions, licence = _buffer(program), _buffer(b"Apache-2.0\0")
    load = (
        _u32(_BPF_PROG_TYPE_CGROUP_DEVICE) + _u32(len(program) // 8)
        + _u64(_ctypes.addressof(instructions)) + _u64(_ctypes.addressof(licence)) + bytes(24)
    )  # fmt: skip
    fd: int = _syscall(_long(_number("bpf")), _long(_BPF_PROG_LOAD), load, _long(len(load)))
    if fd < 0:
        raise _fail("bpf")
    try:
        attach = _u32(group) + _u32(fd) + _u32(_BPF_CGROUP_DEVICE) + _u32(_BPF_F_ALLOW_MULTI)
        if _syscall(_long(_number("bpf")), _long(_BPF_PROG_ATTACH), attach, _long(len(attach))) < 0:
            raise _fail("bpf")
    finally:
        posix.close(fd)


def sched_setattr(policy: int, flags: int, nice: int, priority: int, times_ns: tuple[int, int, int]) -> None:
    """How this process is scheduled; ``times_ns`` are runtime, deadline and period of SCHED_DEADLINE."""
    body = (
        _u32(48) + _u32(policy) + _u64(flags) + nice.to_bytes(4, sys.byteorder, signed=True) + _u32(priority)
        + b"".join(_u64(value) for value in times_ns)
    )  # fmt: skip
    if _syscall(_long(_number("sched_setattr")), _long(0), body, _long(0)) < 0:
        raise _fail("sched_setattr")


def ioprio_set(priority: int) -> None:
    """The I/O priority of this process: the class in bits 13 to 15, the level below."""
    if _syscall(_long(_number("ioprio_set")), _long(1), _long(0), _long(priority)) < 0:
        raise _fail("ioprio_set")


def map_mount_ids(mount_fd: int, user_namespace: int, *, recursive: bool) -> None:
    """Show a detached mount's owners as ``user_namespace`` maps them (Linux 5.12)."""
    attributes = _u64(MOUNT_ATTR_IDMAP) + _u64(0) + _u64(0) + _u64(user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _syscall(_long(_MOUNT_SETATTR), _long(mount_fd), b"", _long(flags), attributes, _long(len(attributes))) < 0:
        raise _fail("mount_setattr")


# --- descriptors ------------------------------------------------------------------------


_OPENAT2_ATTEMPTS = 1000
_EAGAIN = 11


def openat2(directory: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec: the way to follow a hostile path without leaving ``directory``.

    The kernel gives up on a ``..`` in the path when anything on the machine was mounted or renamed
    meanwhile (EAGAIN), which twenty containers at once make likely: it is asked again.
    """
    how = _u64(flags | posix.O_CLOEXEC) + _u64(mode) + _u64(resolve)
    for _ in range(_OPENAT2_ATTEMPTS):
        fd: int = _syscall(_long(_OPENAT2), _long(directory), path, how, _long(len(how)))
        if fd >= 0:
            return fd
        error = _fail("openat2", path)
        if error.errno != _EAGAIN:
            break
    raise error


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on close-on-exec (close_range, Linux 5.11)."""
    if _syscall(_long(_CLOSE_RANGE), _long(first), _long(0xFFFFFFFF), _long(_CLOSE_RANGE_CLOEXEC)) < 0:
        raise _fail("close_range")


def poll(descriptors: dict[int, int], timeout_ms: int = -1) -> dict[int, int]:
    """poll(2): the events of those descriptors that have any, or an empty dict after the timeout."""
    records = b"".join(
        fd.to_bytes(4, sys.byteorder) + events.to_bytes(2, sys.byteorder) + bytes(2)
        for fd, events in descriptors.items()
    )
    buffer = _buffer(records)
    while _poll(_ctypes.addressof(buffer), len(descriptors), timeout_ms) < 0:
        if _ctypes.get_errno() != EINTR:
            raise _fail("poll")
    data = bytes(buffer)
    found = ((fd, int.from_bytes(data[8 * i + 6 : 8 * i + 8], sys.byteorder)) for i, fd in enumerate(descriptors))
    return {fd: events for fd, events in found if events}


def ioctl(fd: int, request: int, argument: int = 0) -> int:
    """ioctl(2) with a number as argument."""
    result: int = _ioctl(fd, request, argument)
    if result < 0:
        raise _fail(f"ioctl 0x{request:x}")
    return result


def ioctl_buffer(fd: int, request: int, data: bytes) -> bytes:
    """ioctl(2) with a structure as argument: what the kernel left in it."""
    buffer = _buffer(data)
    if _ioctl(fd, request, _ctypes.addressof(buffer)) < 0:
        raise _fail(f"ioctl 0x{request:x}")
    return bytes(buffer)


def send_descriptor(socket: int, payload: bytes, fd: int) -> None:
    """Send ``payload`` and a descriptor over a unix socket (SCM_RIGHTS)."""
    control = _buffer(_u64(20) + _u32(_SOL_SOCKET) + _u32(_SCM_RIGHTS) + _u32(fd) + bytes(4))
    data = _buffer(payload)
    vector = _buffer(_u64(_ctypes.addressof(data)) + _u64(len(payload)))
    header = (
        _u64(0) + _u64(0)
        + _u64(_ctypes.addressof(vector)) + _u64(1)
        + _u64(_ctypes.addressof(control)) + _u64(24)
        + _u64(0)
    )  # fmt: skip
    if _sendmsg(socket, header, 0) < 0:
        raise _fail("sendmsg")


# --- network ----------------------------------------------------------------------------


def route_requests(messages: tuple[bytes, ...]) -> None:
    """Send rtnetlink requests of the caller's network namespace, each with NLM_F_ACK, in order.

    Raises at the first one that the kernel refuses.
    """
    fd = _socket(_AF_NETLINK, _SOCK_RAW_CLOEXEC, 0)
    if fd < 0:
        raise _fail("socket")
    try:
        for message in messages:
            posix.write(fd, message)
            reply = posix.read(fd, 65536)
            code = int.from_bytes(reply[16:20], sys.byteorder, signed=True)
            if int.from_bytes(reply[4:6], sys.byteorder) == _NLMSG_ERROR and code:
                raise SyscallError(-code, "rtnetlink")
    finally:
        posix.close(fd)


def run_nftables(commands: bytes) -> str | None:
    """Run nft commands as one transaction: their error text, "" when all went well.

    None when libnftables is not installed (use the nft program then).
    """
    try:
        library = _ctypes.dlopen("libnftables.so.1", _RTLD_NOW)
    except OSError:
        return None

    new = _PointerFunction(_ctypes.dlsym(library, "nft_ctx_new"))
    new.argtypes = (_Int,)
    free, buffer_error, buffer_output, run = (
        _WorkFunction(_ctypes.dlsym(library, name))
        for name in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_run_cmd_from_buffer")
    )
    free.argtypes = buffer_error.argtypes = buffer_output.argtypes = (_Pointer,)
    run.argtypes = (_Pointer, _Bytes)
    errors = _TextFunction(_ctypes.dlsym(library, "nft_ctx_get_error_buffer"))
    errors.argtypes = (_Pointer,)

    context = new(0)
    if not context:
        raise SyscallError(12, "nft_ctx_new")
    try:
        buffer_error(context)
        buffer_output(context)
        if run(context, commands) == 0:
            return ""
        text: bytes = errors(context)
        return text.decode("utf-8", "replace") or "nft refused the commands"
    finally:
        free(context)
