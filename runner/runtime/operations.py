"""The steps that turn a cloned process into a container, as values.

``plan`` decides them, ``child`` performs them one after the other, and ``str`` of one tells
a person what would be done. There is one function for each kind rather than one class: a
class costs every ``run`` a third of a millisecond before it has done anything.
"""

from __future__ import annotations

import os

from image.value import dataclass
from runner.runtime.spec import Device, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

Plain: TypeAlias = "bytes | int | tuple[Plain, ...]"
"""What crosses to the child: paths and text as bytes, truth as 0 or 1."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step: the function of ``child`` that does it, and the arguments it gets.

    ``stage`` is the part of the start that a failure is reported under; ``text`` is near to
    the command that would do the same.
    """

    name: str
    stage: str
    arguments: tuple[Plain, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    def encode(self) -> tuple[bytes, bytes, tuple[Plain, ...]]:
        """The form that ``marshal`` carries."""
        return self.name.encode(), self.stage.encode(), self.arguments


def _operation(name: str, stage: str, text: str, *arguments: str | bytes | int | tuple[object, ...]) -> Operation:
    return Operation(name, stage, tuple(_plain(argument) for argument in arguments), text)


def _plain(value: object) -> Plain:
    match value:
        case str():
            return os.fsencode(value)
        case tuple():
            return tuple(_plain(item) for item in value)
        case bytes() | int():
            return value
        case _:
            raise TypeError(f"an operation cannot carry {type(value).__name__}")


# --- the namespaces and the root ----------------------------------------------------------


def join_keyring(name: str) -> Operation:
    """A session keyring of the container's own, where the kernel has keyrings."""
    return _operation("join_keyring", "session keyring", f"keyctl session {name}", name)


def forget_stdio() -> Operation:
    """With a terminal of its own to come, the container holds nothing of the caller's before that either."""
    return _operation("forget_stdio", "standard streams", "exec <>/dev/null >&0 2>&0")


def join_namespace(path: str, flag: int) -> Operation:
    """Enter the existing namespace at ``path``, of the type that ``flag`` (CLONE_NEW*) says."""
    return _operation("join_namespace", "joining a namespace", f"nsenter {path}", path, flag)


def clone(flags: int, *, detached: bool = False, reaped: bool = False) -> Operation:
    """Fork into new namespaces (CLONE_NEW*): what comes before is done outside, what follows inside.

    A ``detached`` process outlives its launcher once it has started; where it is ``reaped`` so does its watcher.
    """
    return _operation("clone", "new namespaces", f"unshare --fork 0x{flags:x}", flags, detached, reaped)


def open_container(pid: int, flags: int) -> Operation:
    """Hold a container by its first process; join the namespaces that only children can enter."""
    return _operation("open_container", "joining the container", f"nsenter --target {pid} 0x{flags:x}", pid, flags)


def become_root() -> Operation:
    """In a new user namespace: wait until the parent has mapped ids, and be its root."""
    return _operation("become_root", "user namespace", "newuidmap; setpriv --reuid 0 --regid 0 --clear-groups")


def enter_container(flags: int) -> Operation:
    """Join the other namespaces, all at once; / becomes the container's."""
    return _operation("enter_container", "joining the container", f"nsenter 0x{flags:x}", flags)


def hide_process() -> Operation:
    """Keep processes of the container from our memory, descriptors and program until exec."""
    return _operation("hide_process", "joining the container", "prctl PR_SET_DUMPABLE 0")


def isolate_mounts(propagation: int) -> Operation:
    """Keep mounts made from here on out of the host; ``propagation`` is MS_PRIVATE or MS_SLAVE."""
    return _operation("isolate_mounts", "mount namespace", f"mount --make 0x{propagation:x} /", propagation)


def mount_overlay(base: str, options: bytes, target: str) -> Operation:
    """Mount the root from layers; ``options`` and ``target`` are relative to ``base``."""
    text = f"cd {base} && mount -t overlay -o {os.fsdecode(options)} overlay {target}"
    return _operation("mount_overlay", "root filesystem", text, base, options, target)


def bind_root(path: str) -> Operation:
    """Make a plain directory a mount, so that it can be the root."""
    return _operation("bind_root", "root filesystem", f"mount --rbind {path} {path}", path)


def open_source(slot: int, source: str, *, recursive: bool, subdirectory: str = "", process: int = 0) -> Operation:
    """Hold a bind mount's source as a detached mount, before the root can hide its path.

    ``subdirectory`` is inside the source, whatever links are in it. With ``process``, the source is
    what that process has mounted there.
    """
    text = f"open_tree {source}{'/' if subdirectory else ''}{subdirectory}" + (f" of {process}" if process else "")
    return _operation("open_source", "mounts", text, slot, source, recursive, subdirectory, process)


def attach_source(
    slot: int,
    source: str,
    target: str,
    *,
    attributes: int = 0,
    cleared: int = 0,
    recursive: bool = False,
    propagation: int = 0,
) -> Operation:
    """Attach the held mount on ``target`` with MOUNT_ATTR_* ``attributes`` and MS_* ``propagation``.

    ``cleared`` are attributes that it loses; ``recursive`` is for the mounts below it too.
    """
    text = f"mount --bind -o 0x{attributes:x} {source} {target}"
    return _operation("attach_source", "mounts", text, slot, target, attributes, cleared, recursive, propagation)


def mount_filesystem(
    fstype: str, source: str, target: str, flags: int = 0, data: str = "", *, follow: bool = True
) -> Operation:
    """mount(2) inside the root. Without ``follow`` a symbolic link on the way is refused."""
    text = f"mount -t {fstype} -o 0x{flags:x},{data} {source} {target}"
    return _operation("mount_filesystem", "mounts", text, fstype, source, target, flags, data, follow)


def mount_own_group(target: str, flags: int, controllers: str) -> Operation:
    """A hierarchy of v1 with the process's own group as its root, where no namespace says so. Single-threaded only."""
    text = f"unshare --cgroup mount -t cgroup -o 0x{flags:x},{controllers} cgroup {target}"
    return _operation("mount_own_group", "mounts", text, target, flags, controllers)


def make_device(device: Device, kind: int) -> Operation:
    """A node; ``kind`` is S_IFCHR, S_IFBLK or S_IFIFO."""
    text = f"mknod -m {device.mode:o} {device.path} {device.type} {device.major} {device.minor}"
    numbers = (kind, device.major, device.minor, device.mode, device.uid, device.gid)
    return _operation("make_device", "devices", text, device.path, *numbers)


def bind_device(path: str) -> Operation:
    """The host's node of the same name, where making nodes is not allowed."""
    return _operation("bind_device", "devices", f"mount --bind {path} {path}", path)


def make_link(target: str, path: str) -> Operation:
    """A symbolic link at ``path``, unless something is there."""
    return _operation("make_link", "devices", f"ln -s {target} {path}", target, path)


def make_console(rows: int, columns: int, *, mount: bool = True) -> Operation:
    """A pty of the container's devpts as its terminal; the master goes to the parent.

    With ``mount`` it is the container's /dev/console too.
    """
    text = f"open a pty of {columns}x{rows}{' as /dev/console' if mount else ''}"
    return _operation("make_console", "console", text, rows, columns, mount)


def set_hostname(name: str) -> Operation:
    return _operation("set_hostname", "hostname", f"hostname {name}", name)


def set_domainname(name: str) -> Operation:
    return _operation("set_domainname", "domainname", f"domainname {name}", name)


def write_sysctl(path: str, value: str, *, required: bool) -> Operation:
    """``path`` is below /proc/sys; one that is not ``required`` may be absent from this kernel."""
    text = f"echo {value} > /proc/sys/{path}"
    return _operation("write_sysctl", "sysctl", text, f"proc/sys/{path}", value, required)


def make_readonly(path: str) -> Operation:
    """Make a path read-only with all below it, if it exists."""
    return _operation("make_readonly", "read-only paths", f"mount --rbind -o ro {path} {path}", path)


def remount_readonly(path: str) -> Operation:
    """Make the mounts from ``path`` down read-only where they are."""
    return _operation("remount_readonly", "mounts", f"mount -o remount,bind,ro {path}", path)


def mask_path(path: str) -> Operation:
    """Hide a path, if it exists: an empty directory or /dev/null in its place."""
    return _operation("mask_path", "masked paths", f"mask {path}", path)


def readonly_root() -> Operation:
    """Make the root itself read-only; mounts on it keep what they are."""
    return _operation("readonly_root", "root filesystem", "mount -o remount,bind,ro /")


def pivot_root() -> Operation:
    """The root becomes /, and the host's tree is gone."""
    return _operation("pivot_root", "pivot_root", "pivot_root . . && umount -l .")


def offset_clocks(offsets: tuple[tuple[str, int, int], ...]) -> Operation:
    """A new time namespace for the children, its clocks moved: name, seconds, nanoseconds."""
    words = tuple((name, str(seconds), str(nanoseconds)) for name, seconds, nanoseconds in offsets)
    return _operation("offset_clocks", "time namespace", "unshare --time", words)


def make_id_map(slot: int, uid_map: str, gid_map: str) -> Operation:
    """A user namespace that stands for a mapping; ``slot`` is the held mount that will get it."""
    return _operation("make_id_map", "id-mapped mounts", f"unshare --user: {uid_map!r}", slot, uid_map, gid_map)


def map_ids(slot: int, *, recursive: bool) -> Operation:
    """Give the held mount the mapping that was made for it."""
    return _operation("map_ids", "id-mapped mounts", "mount -o X-mount.idmap", slot, recursive)


def copy_up(target: str) -> Operation:
    """Hold what is at ``target``, for the filesystem that is mounted there next to begin with."""
    return _operation("copy_up", "mounts", f"cp -a {target}", target)


def finish_copy_up(target: str) -> Operation:
    """Copy what is held into the mount at ``target``."""
    return _operation("finish_copy_up", "mounts", f"cp -a into {target}", target)


# --- meeting the parent ---------------------------------------------------------------------


def await_parent() -> Operation:
    """Wait until the parent has attached cgroups and network."""
    return _operation("await_parent", "waiting for the parent", "wait for cgroups and network")


def unshare_cgroup() -> Operation:
    """A cgroup namespace whose root is the group that the parent has put us in."""
    return _operation("unshare_cgroup", "cgroup namespace", "unshare --cgroup")


def configure_network(requests: tuple[bytes, ...]) -> Operation:
    """Ready-made rtnetlink requests in the container's network namespace."""
    text = f"configure the network ({len(requests)} rtnetlink requests)"
    return _operation("configure_network", "network", text, requests)


# --- the process ----------------------------------------------------------------------------


def set_rlimit(name: str, resource: int, soft: int, hard: int, *, required: bool = False) -> Operation:
    """A limit that may not be raised here is left as it is, with a warning to the parent, unless it is ``required``."""
    text = f"prlimit {name}={soft}:{hard}"
    return _operation("set_rlimit", "resource limits", text, name, resource, soft, hard, required)


def set_oom_score(value: int) -> Operation:
    return _operation("set_oom_score", "oom score", f"echo {value} > /proc/self/oom_score_adj", value)


def use_user(uid: int, gid: int, groups: tuple[int, ...]) -> Operation:
    """These numbers, and HOME by the container's /etc/passwd where it is not set."""
    return _operation("use_user", "user", f"user {uid}:{gid}", uid, gid, groups)


def find_user(text: str, groups: tuple[str, ...]) -> Operation:
    """``user[:group]`` and further ``groups`` by the container's own /etc/passwd and /etc/group."""
    return _operation("find_user", "user", f"user {text or 'root'} by /etc/passwd", text, groups)


def start_session(umask: int, *, terminal: bool) -> Operation:
    """A session of its own and, with ``terminal``, the console as its controlling terminal."""
    text = f"{'setsid --ctty' if terminal else 'setsid'}; umask {umask:04o}"
    return _operation("start_session", "session", text, umask, terminal)


def set_personality(persona: int) -> Operation:
    return _operation("set_personality", "personality", f"setarch 0x{persona:x}", persona)


def set_scheduler(policy: int, flags: int, nice: int, priority: int, times_ns: tuple[int, int, int]) -> Operation:
    """sched_setattr(2) for the process to be."""
    return _operation("set_scheduler", "scheduler", f"chrt policy {policy}", policy, flags, nice, priority, times_ns)


def set_io_priority(priority: int) -> Operation:
    return _operation("set_io_priority", "I/O priority", f"ionice 0x{priority:x}", priority)


def no_new_privileges() -> Operation:
    return _operation("no_new_privileges", "no new privileges", "setpriv --no-new-privs")


def load_seccomp(program: bytes, flags: int = 0, *, listener: bool = False) -> Operation:
    """A filter; its ``listener``, if it notifies, goes to the parent. ``flags`` are seccomp(2)'s."""
    text = f"seccomp filter of {len(program) // 8} instructions"
    return _operation("load_seccomp", "seccomp", text, program, flags, listener)


def hand_over_listener(program: bytes) -> Operation:
    """A filter that notifies; its listener goes to the parent, which has it answered by another process."""
    text = f"seccomp filter of {len(program) // 8} instructions, with a listener"
    return _operation("hand_over_listener", "seccomp", text, program)


def drop_privileges(bounding: int, effective: int, permitted: int, inheritable: int, ambient: int) -> Operation:
    """Bounding set, then user and groups, then the other sets; each a mask of capability bits."""
    text = f"setpriv --reuid --regid --bounding-set 0x{bounding:x}, effective 0x{effective:x}"
    sets = (bounding, effective, permitted, inheritable, ambient)
    return _operation("drop_privileges", "capabilities", text, *sets)


def enter_directory(path: str, *, make: bool = True) -> Operation:
    """Go to the working directory, making it first with ``make``."""
    text = f"mkdir -p {path} && cd {path}" if make else f"cd {path}"
    return _operation("enter_directory", "working directory", text, path, make)


def check_program(name: str, env: tuple[str, ...]) -> Operation:
    """Look the program up, so that a missing one is told before the process waits for its start."""
    return _operation("check_program", "exec", f"which {name}", name, env)


def open_fifo_directory(path: str) -> Operation:
    """Hold the directory of exec.fifo, which is out of reach once the root has changed."""
    return _operation("open_fifo_directory", "exec fifo", f"open {path}", path)


def await_start() -> Operation:
    """All is ready: tell the parent, and wait until somebody reads exec.fifo."""
    return _operation("await_start", "exec fifo", "echo 0 > exec.fifo")


def await_hooks() -> Operation:
    """Wait until the parent has run its hooks, and take the state for ours from it."""
    return _operation("await_hooks", "hooks", "wait for the hooks of the host")


def run_hook(kind: str, hook: Hook, status: str) -> Operation:
    """Run a hook here and now, with the container's ``status`` in the state that it reads."""
    words = (kind, hook.path, hook.args or (hook.path,), hook.env, hook.timeout_s or 0, status)
    return _operation("run_hook", f"{kind} hook", " ".join(hook.args or (hook.path,)), *words)


def move_root() -> Operation:
    """The root becomes / where pivot_root cannot be used."""
    return _operation("move_root", "changing the root", "mount --move . / && chroot .")


def stay_as_init(*, terminal: bool) -> Operation:
    return _operation("stay_as_init", "starting an init", "fork, and wait for signals and children", int(terminal))


def execute(args: tuple[str, ...], env: tuple[str, ...]) -> Operation:
    return _operation("execute", "exec", "exec " + " ".join(args), args, env)
