"""Flags and commands of docker and podman that there are not: why, or what to use instead.

Looked up when a flag or a command is not known, so that neither help nor start-up pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

_WINDOWS: Final = "it is for Windows containers"
_SWARM: Final = "it belongs to swarms, which there are not"
_POD: Final = "there are no pods: share namespaces with --network container:NAME, --ipc and --pid"
_DAEMON: Final = "there is no daemon"
_REALTIME: Final = "the kernels of distributions have no realtime groups"
_LINK: Final = "put both containers on a network of their own, where they find each other by name or --network-alias"
_PLATFORM: Final = "use --platform OS/ARCH/VARIANT"
_LINK_LOCAL: Final = "addresses come from the network's subnet, see --ip"
_USER: Final = "the user namespace of a user's containers is made from /etc/subuid"
_SIGNING: Final = "images are signed by a tool of their own, such as cosign"
_WATCH: Final = "the monitor is Tierce's own"
_SQUASH: Final = "build it with --squash"
_TAGS: Final = "name the tags, or keep repositories equal with tierce sync"
_ROOTFS: Final = "make an image of it with tierce import"
_LIST: Final = "pipe the list through sort or tail"
_NAMED: Final = "name the containers, $(tierce ps -q --filter KEY=VALUE) finds them"
_PLUGIN: Final = "there are no plugins"
_FILES: Final = "reach a container's files with tierce cp or export"
_COMPRESSION: Final = "use tierce copy --dest-compress-format"

_CREATE: Final = {
    "--cpu-count --cpu-percent --io-maxbandwidth --io-maxiops": _WINDOWS,
    "--cpu-rt-period --cpu-rt-runtime": _REALTIME,
    "--kernel-memory": "the kernel has no such limit any more, use --memory",
    "--link": _LINK,
    "--link-local-ip": _LINK_LOCAL,
    "--storage-opt": "layers have no quota: bound what grows with --tmpfs, a volume or --read-only",
    "--use-api-socket": _DAEMON,
    "--blkio-weight-device": "the kernel has weights of single disks with one scheduler alone, use --device-write-bps",
    "--arch --os --variant": _PLATFORM,
    "--authfile": "log in with tierce login, or set DOCKER_CONFIG",
    "--cgroup-conf --cgroups": "use the flags for limits, and --cgroup-parent",
    "--chrootdirs --hostuser --passwd --passwd-entry": "add it to the image, or mount a file over /etc/passwd",
    "--conmon-pidfile --pidfile --sdnotify --preserve-fds": _WATCH,
    "--env-host --env-merge --unsetenv --unsetenv-all": "give the variables with --env or --env-file; --env NAME unsets one",
    "--gidmap --uidmap --subgidname --subuidname": _USER,
    "--health-on-failure": "use --restart, and tierce events --filter event=health_status",
    "--http-proxy": "give the variables with --env http_proxy",
    "--image-volume": "mount something else there with --tmpfs or --volume",
    "--init-ctr --pod --pod-id-file": _POD,
    "--init-path": "the init is Tierce's own",
    "--no-hosts": "mount a file over /etc/hosts",
    "--personality": "start the program with setarch",
    "--read-only-tmpfs": "use --tmpfs",
    "--replace": "remove the other with tierce rm -f NAME first",
    "--requires": "start the others first",
    "--rmi": "remove the image with tierce rmi",
    "--rootfs": _ROOTFS,
    "--seccomp-policy": "use --security-opt seccomp=FILE",
    "--secret": "mount a file with --volume FILE:/run/secrets/NAME:ro",
    "--systemd": "use --tmpfs /run --tmpfs /tmp --security-opt writable-cgroups --stop-signal RTMIN+3",
    "--timeout": "start it with the timeout command",
    "--tz": "use --env TZ=ZONE",
    "--umask": "start the program with a shell's umask",
}
_EACH: Final = {
    "--cidfile": _NAMED,
    "-i --ignore --depend": "check with tierce container exists",
    "-t --time": "use tierce stop -t first",
}
_ONE: Final = {
    "--format": "the list is plain text",
    "--preserve-fds": _WATCH,
    "--color --names": "the lines are those of one container",
    "-a --all": _NAMED,
    "-i --interval --no-reset": "nothing is polled",
    "-eo": "give ps its options after the container: tierce top NAME -eo pid,args",
    "-t": "use --type",
}
_IMAGES: Final = {
    "--tree": "an image of the store is of one platform; tierce inspect docker://NAME shows those of a registry",
    "--history --noheading --sort -n": _LIST,
}
_REMOVE_IMAGES: Final = {
    "--platform": "an image of the store is of one platform: name it",
    "-a --all": "name them: tierce rmi $(tierce images -q), or tierce image prune -a",
    "-i --ignore": "use --force",
}
_LISTED: Final = {
    "--external --ns --pod -p --sync": "there is nothing of the kind",
    "--noheading --sort --watch -w": _LIST,
}
_PULL: Final = {"-a --all-tags": _TAGS, "--arch --os --variant": _PLATFORM}
_PUSH: Final = {
    "-a --all-tags": _TAGS,
    "--compress --compression-format -f --format": _COMPRESSION,
    "--digestfile": "tierce digest NAME prints it",
    "--remove-signatures --sign-by --sign-by-sigstore-private-key --sign-passphrase-file": _SIGNING,
}
_PROGRAM: Final = {
    "-H --host -c --context --connection --identity --url -r --remote --tls --tlscacert --tlscert --tlskey --tlsverify": _DAEMON,
    "--config": "set DOCKER_CONFIG",
    "-D -l --log-level --syslog --trace": "use --debug",
    "--cgroup-manager --conmon --events-backend --hooks-dir --imagestore --module --network-cmd-path --network-config-dir "
    "--noout --runtime --runtime-flag --ssh --storage-driver --storage-opt --tmpdir --transient-store --volumepath --runroot "
    "--out --namespace --registries-conf-dir": "use --root, and flags of the command",
}
_FLAGS: Final[Mapping[str, Mapping[str, str]]] = {
    "": _PROGRAM,
    "run": _CREATE,
    "create": _CREATE,
    "start": {"--checkpoint --checkpoint-dir": "there are no checkpoints", **_EACH},
    **dict.fromkeys(("kill", "pause", "restart", "rm", "stop", "unpause"), _EACH),
    **dict.fromkeys(("attach", "diff", "exec", "inspect", "logs", "port", "stats", "top", "wait"), _ONE),
    "commit": {"--format -f": _COMPRESSION, "--iidfile -q --quiet": "standard output is the id",
               "--include-volumes": "copy the files with tierce cp", "-s --squash": _SQUASH},
    "cp": {"--overwrite": "a directory never takes a file's place, nor the other way round"},
    "events": {"--no-trunc": "ids are whole"},
    "images": _IMAGES, "image ls": _IMAGES, "image list": _IMAGES,
    "import": {"--arch --os --variant": _PLATFORM, "-q --quiet": "standard output is the id"},
    "login": {"--verbose -v": "use tierce --debug login"},
    **dict.fromkeys(("ps", "container ls", "container ps", "container list"), _LISTED),
    "pull": _PULL,
    "push": _PUSH,
    **dict.fromkeys(("rmi", "image rm", "image remove"), _REMOVE_IMAGES),
    "save": {"--compress --uncompressed --format": _COMPRESSION, "-m --multi-image-archive": "several images are written as they are named"},
    "update": {"--cpu-rt-period --cpu-rt-runtime": _REALTIME, "--kernel-memory": _CREATE["--kernel-memory"],
               "--blkio-weight-device": _CREATE["--blkio-weight-device"],
               "--device-read-bps --device-read-iops --device-write-bps --device-write-iops --memory-swappiness":
               "it is set when the container is created"},
    "network create": {
        "--aux-address": "leave addresses free with --ip-range",
        "--config-from --config-only --ingress": _SWARM,
        "--ipam-opt": _PLUGIN,
        "--disable-dns": "the default network has no names",
    },
    "network connect": {"--driver-opt": _PLUGIN, "--gw-priority": "the way out is by the first network that leads outside",
                        "--link": _LINK, "--link-local-ip": _LINK_LOCAL,
                        "--mac-address": "choose it with tierce run --network name=NET,mac-address=MAC"},
    "network ls": _LISTED,
    "network rm": {"-t --time": "stop its containers first"},
    "volume create": {"--availability --group --limit-bytes --required-bytes --scope --secret --sharing --topology-preferred "
                      "--topology-required --type": _SWARM, "-l": "use --label"},
    "volume ls": {"--cluster": _SWARM, **_LISTED},
    "volume rm": {"-a --all": "use tierce volume prune -a", "-t --time": "stop its containers first"},
    "volume inspect": {"-a --all": "use tierce volume inspect $(tierce volume ls -q)"},
    "image prune": {"--external": "there is nothing of the kind"},
    "builder prune": {"--external": "there is nothing of the kind"},
}  # fmt: skip
_COMMANDS: Final = {
    "checkpoint": "there are no checkpoints",
    "search": "only Docker Hub has it, at https://hub.docker.com/search; tierce list-tags lists a repository's tags",
    **dict.fromkeys(("trust", "standalone-sign", "standalone-verify"), _SIGNING),
    "plugin": _PLUGIN,
    "compose": "start containers with tierce run, on a network of their own",
    **dict.fromkeys(("context", "machine"), _DAEMON),
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), _SWARM),
    **dict.fromkeys(("pod", "kube", "play", "generate"), _POD),
    **dict.fromkeys(("mount", "unmount", "umount"), _FILES),
    "unshare": "tierce run does it",
    "healthcheck": "the monitor asks by itself, see tierce inspect",
    "auto-update": "pull, and create the container again",
    "buildx": "tierce build has its flags",
    **dict.fromkeys(("untag", "image untag"), "use tierce rmi NAME"),
    "image search": "only Docker Hub has it, at https://hub.docker.com/search",
    "image diff": "create containers, and compare them with tierce diff",
    **dict.fromkeys(("image mount", "image unmount"), "write its files with tierce image export"),
    "image tree": "tierce history lists the layers",
    "image scp": "use tierce save and load",
    **dict.fromkeys(("image sign", "image trust"), _SIGNING),
    **dict.fromkeys(("container checkpoint", "container restore"), "there are no checkpoints"),
    **dict.fromkeys(("container mount", "container unmount"), _FILES),
    "container cleanup": "what a container took is given back at its end, or by the next command",
    "container init": "tierce start does it",
    "container clone": "create another with tierce create",
    "container runlabel": "run the command that tierce inspect shows",
    "network reload": "rules are made anew with each container",
    **dict.fromkeys(("system connection", "system service", "system dial-stdio"), _DAEMON),
    **dict.fromkeys(("system migrate", "system renumber"), "there is nothing of the kind"),
    "system reset": "remove the directory that tierce info names as the root",
    "volume update": _SWARM,
    "volume reload": _PLUGIN,
    **dict.fromkeys(
        ("volume export", "volume import", "volume mount", "volume unmount"),
        "use tierce cp with a container that mounts it",
    ),
    "init": "tierce start does it",
}


def refused_flag(path: str, name: str) -> str:
    """Why the command (``run``, ``network create``) lacks a flag that docker's or podman's has; "" for an unknown one."""
    for known in (path, path.removeprefix("container "), path.removeprefix("image ")):
        for names, why in _FLAGS.get(known, {}).items():
            if name in names.split():
                return why
    return ""


def refused_command(path: str) -> str:
    """Why there is no such command; "" when docker and podman have none either."""
    return _COMMANDS.get(path, "")


def flags() -> Iterator[tuple[str, str]]:
    """Every command and flag of the table."""
    for path, group in _FLAGS.items():
        yield from ((path, name) for names in group for name in names.split())
