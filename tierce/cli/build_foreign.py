"""Flags of docker, buildx, podman, buildah and img that ``tierce build`` has no use for.

Some say what is so anyway: they are accepted. The others ask for what can't be had: each is
refused by a line that says what to do instead. None is unknown, and none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from image.errors import InvalidInput
from tierce.cli.declare import Option, option

_NOTHING_TO_DO: Final[Mapping[str, tuple[str, ...]]] = {
    "containers of steps never stay": ("--rm/--no-rm", "--force-rm"),
    "a context is not sent anywhere": ("--compress",),
    "there is no content trust": ("--disable-content-trust",),
    "layers are compressed once, and buildx's -D is for logs of its own": ("-D --disable-compression --debug",),
    "no label is added unasked": ("--identity-label",),
    "base images are fetched when they are missing": ("--pull-missing", "--pull-ifmissing", "--no-console"),
    "nothing of a step stays": ("--transient-run-mounts",),
}
"""Switches by why they need nothing."""

_SO_ANYWAY: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "--ipc": (frozenset({"private"}), "a step has an IPC namespace of its own"),
    "--pid": (frozenset({"private"}), "a step has a PID namespace of its own"),
    "--uts": (frozenset({"private"}), "a step has a host name of its own"),
    "--cgroupns": (frozenset({"private"}), "a step has a cgroup namespace of its own"),
    "--userns": (frozenset({"container", "private", ""}), "steps run in the user namespace of tierce"),
    "--skip-unused-stages": (
        frozenset({"true", "1"}),
        "stages that the target does not need are never built: name one with --target",
    ),
    "--compat-volumes": (frozenset({"false", "0"}), "what RUN writes below a VOLUME stays, as with docker"),
    "--created-annotation": (frozenset({"false", "0"}), "an image has no annotation unasked: use --annotation"),
    "--inherit-labels": (frozenset({"true", "1"}), "labels of the base stay: use --unsetlabel"),
    "--inherit-annotations": (
        frozenset({"false", "0"}),
        "annotations of the base are not taken over: use --annotation",
    ),
    "--save-stages": (frozenset({"false", "0"}), "images of stages are not kept: build one with --target"),
    "--stage-labels": (frozenset({"false", "0"}), "layers of stages carry no labels"),
    "--no-hosts": (frozenset({"false", "0"}), "a step has an /etc/hosts of its own, with what --add-host names"),
    "--all-platforms": (frozenset({"false", "0"}), "name them: --platform linux/amd64,linux/arm64"),
}
"""Flags whose usual values are true here, with what to say of any other."""

_NAME_A_BUILD: Final = "there is one builder, in this process, and no daemon"
_MAPS: Final = "root of a user's build is mapped by /etc/subuid and /etc/subgid, or to the user alone"
_SBOM: Final = "an SBOM is not made here: run a scanner, such as syft, on the image"
_REFUSED: Final[Mapping[str, str]] = {
    "--blob-cache": "blobs are in the store",
    "--cni-config-dir": "networks are made without CNI: use --network default, none or host",
    "--cni-plugin-path": "networks are made without CNI: use --network default, none or host",
    "--cpp-flag": "run cpp first and pass its output: cpp -P Containerfile.in | tierce build -f - .",
    "--cw": "images for confidential machines are not made here",
    "--decryption-key": "encrypted images can't be read: decrypt them with skopeo copy --decryption-key",
    "--detach": _NAME_A_BUILD,
    "--device": "use RUN --security=insecure and --allow security.insecure, which give a step all devices",
    "--group-add": "name the group in the Dockerfile: USER name:group",
    "--hooks-dir": "OCI hooks are not run for steps",
    "--layer-label": "layers carry no labels: use --label or --annotation for the image",
    "--log-rusage": "times of steps are in --progress rawjson and --graph",
    "--logfile": "progress is on standard error: redirect it with 2> FILE",
    "--logsplit": "progress is on standard error, with the platform in each line: redirect it with 2> FILE",
    "--no-pivot": "the root of a step is always pivoted",
    "--os-feature": "use: tierce mutate, or FROM an image that has it",
    "--os-version": "use FROM an image that has it",
    "--policy": "what may be pulled is said in registries.conf (blocked = true)",
    "--print": "use --call, such as --call outline",
    "--runtime": "steps run on tierce's own runtime: use --isolation",
    "--runtime-flag": "steps run on tierce's own runtime",
    "--rusage-logfile": "times of steps are in --progress rawjson and --graph",
    "--server-config": _NAME_A_BUILD,
    "--sign-by": "sign the pushed image: cosign sign IMAGE@DIGEST, with the digest of --metadata-file",
    "--signature-policy": "signatures of base images are not checked: pin their digests with tierce pin",
    "--source-policy-file": "pin sources with tierce pin, or replace one with --build-context NAME=docker-image://IMAGE",
    "--stdin": "a step has no input: use COPY, a heredoc or RUN --mount",
    "--unsetannotation": "annotations of the base are not taken over",
    "--userns-gid-map": _MAPS,
    "--userns-gid-map-group": _MAPS,
    "--userns-uid-map": _MAPS,
    "--userns-uid-map-user": _MAPS,
    **{f"--sbom-{part}": _SBOM for part in (
        "image-output", "image-purl-output", "merge-strategy", "output", "purl-output", "scanner-command", "scanner-image",
    )},
}  # fmt: skip
"""What to say instead."""


_ONE_OF_A_KIND: Final = ("--builder", "--loglevel")
"""There is one builder to name, and one level of logs."""


def foreign_options() -> list[Option]:
    """All of them, hidden. Making them takes longer than a build of which nothing changed may."""
    return [
        *(_switch(name) for names in _NOTHING_TO_DO.values() for name in names),
        *(_usual(name, *words) for name, words in _SO_ANYWAY.items()),
        *(_refused(name, advice) for name, advice in _REFUSED.items()),
        *(option(name, hidden=True, expose_value=False) for name in _ONE_OF_A_KIND),
    ]


def _switch(name: str) -> Option:
    return option(*name.split(), is_flag=True, hidden=True, expose_value=False)


def _usual(name: str, usual: frozenset[str], advice: str) -> Option:
    def check(_settings: object, _name: str, value: str | None) -> None:
        if value is not None and value.lower() not in usual:
            raise InvalidInput(f"{name}={value} is not supported: {advice}")

    return _checked(name, "true", check)


def _refused(name: str, advice: str) -> Option:
    def refuse(_settings: object, _name: str, value: str | None) -> None:
        if value is not None:
            raise InvalidInput(f"{name} is not supported: {advice}")

    return _checked(name, "", refuse)


def _checked(name: str, bare: str, check: Callable[[Any, str, Any], None]) -> Option:
    """A flag with a value, or ``bare`` without one."""
    return option(name, is_flag=False, flag_value=bare, default=None, callback=check, hidden=True, expose_value=False)
