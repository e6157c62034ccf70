"""What this runtime can do, as the runtime-spec's features document.

Spec: runtime-spec 1.2, "Features Structure".
"""

from __future__ import annotations

from typing import Any

from runner.runtime import capabilities, mount_options, seccomp
from runner.runtime.plan import NEW_NAMESPACES
from runner.runtime.spec import OCI_VERSION


def features() -> dict[str, Any]:
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options.known_words(),
        "linux": {
            "namespaces": sorted(NEW_NAMESPACES),
            "capabilities": list(capabilities.ALL),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": seccomp.known_actions(),
                "operators": seccomp.known_operators(),
                "archs": seccomp.known_architectures(),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {},
    }
