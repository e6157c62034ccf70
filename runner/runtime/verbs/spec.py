"""``spec``: write a config.json to start from."""

from __future__ import annotations

import os
from pathlib import Path

from image.errors import InvalidInput
from image.value import replace
from runner.runtime.call import Call
from runner.runtime.config_encode import encode_spec
from runner.runtime.defaults import example_spec
from runner.runtime.spec import IdMapping, Namespace, Spec


def run(call: Call) -> int:
    path = Path(call.options.text("bundle", ".")) / "config.json"
    spec = example_spec()
    if call.options.flag("rootless"):
        spec = rootless(spec, os.geteuid(), os.getegid())
    try:
        with open(path, "xb") as file:
            file.write(encode_spec(spec) + b"\n")
    except FileExistsError:
        raise InvalidInput(f"{path} exists: remove it first") from None
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from error
    return 0


def rootless(spec: Spec, uid: int, gid: int) -> Spec:
    """For an ordinary user: a user namespace of one id, the host's network and /sys. As runc's. Pure."""
    kept = tuple(Namespace(entry.type) for entry in spec.namespaces if entry.type != "network")
    mounts = []
    for mount in spec.mounts:
        if mount.type == "cgroup":
            continue
        own = mount
        if mount.type == "sysfs":
            own = replace(mount, type="none", source="/sys", options=("rbind", "nosuid", "noexec", "nodev", "ro"))
        mounts.append(replace(own, options=tuple(word for word in own.options if not word.startswith("gid="))))
    return replace(
        spec,
        namespaces=(*kept, Namespace("user")),
        uid_mappings=(IdMapping(0, uid, 1),),
        gid_mappings=(IdMapping(0, gid, 1),),
        mounts=tuple(mounts),
        resources=replace(spec.resources, devices=()),
    )
