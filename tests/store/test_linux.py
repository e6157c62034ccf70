"""Each call is made for real, in a child process that may change its own namespaces."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.linux import descriptors, foreign, nftables, paths

CHECKOUT = Path(foreign.__file__).parents[2]
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from store.linux import descriptors, foreign, mounts, paths, processes; import posix\n"


def bare(code: str, *arguments: str) -> str:
    """What ``code`` prints when a bare interpreter runs it beside these modules."""
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", PROGRAM + code, str(CHECKOUT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bare_interpreter_loads_it_without_the_standard_library() -> None:
    code = "print(*(m for m in sys.modules if m.split('.')[0] in ('os', 'ctypes', 'site', 'typing', 're', 'struct')))"
    assert bare(code).strip() == ""


@pytest.mark.root
class TestMounts:
    def test_mount_and_umount_stay_in_the_namespace(self, tmp_path: Path) -> None:
        code = """
processes.unshare(processes.CLONE_NEWNS)
mounts.mount(None, b'/', None, mounts.MS_REC | mounts.MS_PRIVATE)
target = sys.argv[2].encode()
mounts.mount(b'tmpfs', target, b'tmpfs', mounts.MS_NOSUID, b'mode=711')
print(oct(posix.stat(target).st_mode & 0o777))
mounts.umount2(target)
try:
    mounts.umount2(target)
except OSError as error:
    print(error.errno, error.syscall, error.filename)
"""
        assert bare(code, str(tmp_path)).split() == ["0o711", str(errno.EINVAL), "umount2", str(tmp_path)]

    def test_detached_read_only_clone_is_attached(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        (source / "file").write_text("seen")
        code = """
processes.unshare(processes.CLONE_NEWNS)
mounts.mount(None, b'/', None, mounts.MS_REC | mounts.MS_PRIVATE)
tree = mounts.open_tree(paths.AT_FDCWD, sys.argv[2].encode(), mounts.OPEN_TREE_CLONE)
mounts.mount_setattr(tree, set_=mounts.MOUNT_ATTR_RDONLY)
place = paths.openat2(paths.AT_FDCWD, sys.argv[3].encode(), paths.O_PATH)
mounts.move_mount(tree, place)
print(posix.listdir(sys.argv[3]))
try:
    posix.mkdir(sys.argv[3] + '/more')
except OSError as error:
    print(error.errno)
"""
        assert bare(code, str(source), str(target)) == f"['file']\n{errno.EROFS}\n"
        assert list(target.iterdir()) == []


@pytest.mark.root
def test_clone_makes_an_init_process() -> None:
    code = """
pid = processes.clone(processes.CLONE_NEWPID | processes.CLONE_NEWUTS)
if pid == 0:
    processes.sethostname(b'inside')
    posix.write(1, f'{posix.getpid()} {posix.uname().nodename}'.encode())
    posix._exit(3)
print('', posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]))
"""
    assert bare(code).split() == ["1", "inside", "3"]


def test_openat2_keeps_a_hostile_link_in_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("inside")
    (tmp_path / "link").symlink_to("/../../../etc/passwd")
    root = os.open(tmp_path, paths.O_PATH)
    try:
        fd = paths.openat2(root, b"link", os.O_RDONLY, 0, paths.RESOLVE_IN_ROOT)
        assert not os.get_inheritable(fd)
        with open(fd) as file:
            assert file.read() == "inside"
    finally:
        os.close(root)


def test_error_names_call_and_path(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(foreign.SyscallError) as caught:
        paths.openat2(paths.AT_FDCWD, os.fsencode(missing), os.O_RDONLY)
    assert (caught.value.errno, caught.value.syscall, caught.value.filename) == (errno.ENOENT, "openat2", str(missing))
    assert str(caught.value) == f"openat2 {missing}: No such file or directory"


def test_poll_tells_which_descriptor_is_ready() -> None:
    read, write = os.pipe()
    idle_read, idle_write = os.pipe()
    try:
        assert descriptors.poll({read: descriptors.POLLIN, idle_read: descriptors.POLLIN}, 0) == {}
        os.write(write, b"x")
        assert descriptors.poll({idle_read: descriptors.POLLIN, read: descriptors.POLLIN}) == {read: descriptors.POLLIN}
    finally:
        for fd in (read, write, idle_read, idle_write):
            os.close(fd)


def test_descriptor_arrives_over_a_socket() -> None:
    import socket

    left, right = socket.socketpair()
    read, write = os.pipe()
    with left, right:
        descriptors.send_descriptor(left.fileno(), b"here", write)
        payload, received, _, _ = socket.recv_fds(right, 100, 1)
        os.write(received[0], b"through")
        assert (payload, os.read(read, 100)) == (b"here", b"through")
    for fd in (read, write, *received):
        os.close(fd)


@pytest.mark.root
def test_nftables_runs_commands_as_one_transaction() -> None:
    probe = nftables.run_nftables(b"list tables")
    if probe is None:
        pytest.skip("libnftables.so.1 is not installed")
    text = nftables.run_nftables(b"add table ip tierce_test_linux\nadd rule ip tierce_test_linux absent accept")
    assert text
    assert "No such file or directory" in text
    assert (
        "tierce_test_linux"
        not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    )


@pytest.mark.root
def test_a_chain_of_nftables_is_found() -> None:
    """In a network namespace of its own."""
    program = """
import subprocess
from store.linux.nftables import has_chain
print(has_chain("ip", "filter", "FORWARD"))
for line in ("table ip filter", "chain ip filter FORWARD", "table ip6 filter"):
    subprocess.run(["nft", "add", *line.split()], check=True)
print(has_chain("ip", "filter", "FORWARD"), has_chain("ip", "filter", "INPUT"), has_chain("ip6", "filter", "FORWARD"))
"""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False\nTrue False False\n", "")
