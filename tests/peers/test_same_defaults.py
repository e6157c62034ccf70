"""What a container finds around it: the same under ``tierce run`` and under a real ``docker run``, flag by flag.

Docker 20.10 is the oldest that a machine is likely to have; where docker 28 gives something else, ``NEWER``
says so. The rest is compared as it stands: /proc/self/status, environment, limits, mounts, devices, masked and
read-only paths, sysctls, the device list.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer]

PROBE = r"""
echo "== status"; grep -E '^(Cap|NoNewPrivs|Seccomp:|Umask|Groups|Uid|Gid)' /proc/self/status
echo "== env"; env
echo "== limits"; cat /proc/self/limits
echo "== mounts"; cat /proc/self/mounts
echo "== devices"; stat -c '%n %F %t:%T %a %u:%g %N' /dev/* /dev
echo "== masked"
for path in asound acpi kcore keys latency_stats timer_list timer_stats sched_debug scsi; do
  echo $path $(stat -c '%F %t:%T %a' /proc/$path 2>&1)
done
echo firmware $(ls /sys/firmware)
echo "== sysctls"
for path in net/ipv4/ping_group_range net/ipv4/ip_unprivileged_port_start kernel/shmmax; do
  echo $path $(cat /proc/sys/$path 2>&1)
done
echo "== list"; cat /sys/fs/cgroup/devices/devices.list
echo "== process"; cat /proc/self/oom_score_adj /proc/self/personality /proc/1/comm; pwd; whoami 2>&1
ls -ld /proc /sys /dev /etc/hostname /etc/hosts /etc/resolv.conf | cut -c1-10
cat /etc/hosts | grep -v "$HOSTNAME"
"""
NEWER = ("/proc/interrupts ", "/sys/devices/virtual/powercap ")
"""Docker 28 masks these too."""

CASES = [
    "", "--cap-drop ALL --cap-add NET_ADMIN", "--cap-drop=chown", "--user 1000:5 --group-add 29", "--user daemon",
    "--security-opt no-new-privileges", "--security-opt seccomp=unconfined", "--security-opt systempaths=unconfined",
    "--read-only", "--ipc host", "--ipc none", "--ipc shareable", "--uts host", "--shm-size 1m",
    "--tmpfs /t:size=1m,exec", "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700",
    "--device /dev/loop-control:/dev/x:r", "--device-cgroup-rule=b_*:7_rw", "--ulimit nofile=100:200 --ulimit core=0",
    "-w /a/b", "--sysctl kernel.shmmax=1000", "--oom-score-adj 300", "-t", "-e A=1 -e PATH=/bin -e HOSTNAME",
]  # fmt: skip


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.replace("\r", "").splitlines():
        if line.startswith("== "):
            found[line[3:]] = []
        else:
            found[list(found)[-1]].append(line)
    return found


def _mounts(lines: list[str]) -> list[str]:
    """Place, type and options. The root's layers, and what backs the three files in /etc, are each engine's own."""
    kept = []
    for line in lines:
        source, place, kind, options, *_ = line.split(" ")
        if place == "/" or place.startswith(("/etc/", "/sys/fs/cgroup")) or f"{place} " in NEWER:
            continue
        words = options.split(",")
        if kind == "tmpfs" and place.startswith(("/proc/", "/sys/")):  # a mask; ours has room for nothing as well
            words = [word for word in words if not word.startswith(("size=", "nr_inodes="))]
        kept.append(f"{source} {place} {kind} {','.join(sorted(words))}")
    return sorted(kept)


def _device_list(lines: list[str]) -> list[str]:
    return sorted(line for line in lines if line != "c 10:200 rwm")  # /dev/net/tun, which runc has taken back


COMPARED: dict[str, Callable[[list[str]], list[str]]] = {
    "status": list,
    "env": lambda lines: sorted(re.sub("^HOSTNAME=[0-9a-f]{12}$", "HOSTNAME=id", line) for line in lines),
    "limits": list,
    "mounts": _mounts,
    "devices": sorted,
    "masked": list,
    "sysctls": list,
    "list": _device_list,
    "process": list,
}


@pytest.mark.parametrize("flags", CASES)
def test_same_surroundings(flags: str, tierce_with_busybox: Tierce, docker: Docker) -> None:
    argv = [word.replace("_", " ") if "rule" in word else word for word in flags.split()]
    command = ("run", "--rm", "--network=none", *argv, "busybox", "sh", "-c", PROBE)
    theirs, ours = sections(docker(*command)), sections(tierce_with_busybox(*command).stdout)
    for name, comparable in COMPARED.items():
        assert comparable(ours[name]) == comparable(theirs[name]), name


def test_what_docker_28_masks_too(tierce_with_busybox: Tierce) -> None:
    script = "stat -c %t:%T /proc/interrupts; ls /sys/devices/virtual/powercap 2>/dev/null | wc -l"
    assert tierce_with_busybox("run", "--rm", "--network=none", "busybox", "sh", "-c", script).stdout == "1:3\n0\n"
