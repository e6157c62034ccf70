"""A bundle's own user namespace: the container's root is nobody on the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import OURS, Runtime, runtime_with_bundle

pytestmark = pytest.mark.root


@pytest.fixture(params=["tierce", pytest.param("runc", marks=pytest.mark.peer)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """In a place that everybody may pass through, since the container's root is nobody special there."""
    if request.param == "runc" and shutil.which("runc") is None:
        pytest.skip("needs runc")
    with tempfile.TemporaryDirectory(prefix="tierce-peers-userns-") as directory:
        Path(directory).chmod(0o755)
        found = runtime_with_bundle(OURS if request.param == "tierce" else ("runc",), Path(directory))
        subprocess.run(["chown", "-R", "100000:100000", str(found.bundle / "rootfs")], check=True)
        found.configure(_with_user_namespace)
        yield found
        found.close()


def _with_user_namespace(document: dict[str, Any]) -> None:
    linux = document["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    document["mounts"] = [mount for mount in document["mounts"] if mount["type"] != "cgroup"]


def test_root_inside_is_not_root_outside(runtime: Runtime) -> None:
    script = "id -u; touch /made /dev/shm/x; cat /proc/self/uid_map; echo fine > /dev/null; mknod /n c 1 1 2>/dev/null || echo no"
    runtime.process("sh", "-c", script)
    done = runtime("run", "--bundle", str(runtime.bundle), runtime.new_id())
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"0", b"0", b"100000", b"65536", b"no"], b"")
    assert os.stat(runtime.bundle / "rootfs/made").st_uid == 100000


def test_exec_joins_it(runtime: Runtime) -> None:
    name = runtime.sleeping()
    assert runtime.ok("exec", name, "sh", "-c", "id -u; touch /tmp/by-exec").split() == ["0"]
    assert os.stat(runtime.bundle / "rootfs/tmp/by-exec").st_uid == 100000
    assert os.stat(f"/proc/{runtime.state(name)['pid']}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
