"""The flags of ``tierce build`` as values: what the user typed, before anything is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from image.errors import InvalidInput
from image.value import dataclass

if TYPE_CHECKING:
    from builder.draw import Form
    from builder.entitlements import Entitlement
    from tierce.build.step_limits import StepLimits

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFlags:
    """One member a flag; the comments group them as the help does not."""

    context: str
    # what is built
    file: str | None
    build_arg: tuple[str, ...]
    build_arg_file: tuple[Path, ...]
    build_context: tuple[str, ...]
    ignorefile: Path | None
    target: str
    platform: tuple[str, ...]
    label: tuple[str, ...]
    pull: bool
    tls_verify: bool
    # how steps run
    network: str
    allow: tuple[str, ...]
    secret: tuple[str, ...]
    ssh: tuple[str, ...]
    host_ca: bool
    add_host: tuple[str, ...]
    shm_size: str
    memory: str
    cpu_quota: int | None
    cpu_period: int | None
    cpu_shares: int | None
    cpuset_cpus: str
    ulimit: tuple[str, ...]
    jobs: int | None
    no_cache: bool
    no_cache_filter: tuple[str, ...]
    cache_from: tuple[str, ...]
    cache_to: tuple[str, ...]
    # what comes out
    tag: tuple[str, ...]
    output: tuple[str, ...]
    push: bool
    load: bool
    format: str
    annotation: tuple[str, ...]
    squash: bool
    layers: bool
    isolation: str
    shell_on_failure: bool
    omit_history: bool
    timestamp: int | None
    source_date_epoch: int | None
    rewrite_timestamp: bool
    verify_reproducible: bool
    metadata_file: Path | None
    iidfile: Path | None
    progress: str
    quiet: bool
    call: str
    check: bool
    graph: Form | None

    @property
    def workers(self) -> int:
        """Steps at once: they mostly wait for processes, so a little more than the processors."""
        return self.jobs or (os.cpu_count() or 2) + 2

    def entitlements(self) -> frozenset[Entitlement]:
        """What RUN may ask for; ``--network host`` gives every step the host's already. Raises InvalidInput."""
        from builder.entitlements import parse_entitlements

        return parse_entitlements((*self.allow, "network.host") if self.network == "host" else self.allow)

    def limits(self) -> StepLimits:
        """What every RUN may have. Raises InvalidInput."""
        from tierce.build.step_limits import StepLimits, parse_hosts, parse_ulimits
        from tierce.cli.units import parse_size

        return StepLimits(
            hosts=parse_hosts(self.add_host),
            shm_size=parse_size(self.shm_size) if self.shm_size else None,
            memory=parse_size(self.memory) if self.memory else None,
            cpu_quota_us=self.cpu_quota,
            cpu_period_us=self.cpu_period,
            cpu_shares=self.cpu_shares,
            cpuset_cpus=self.cpuset_cpus,
            ulimits=parse_ulimits(self.ulimit),
        )

    def pairs(self, words: tuple[str, ...]) -> dict[str, str | None]:
        """``NAME=VALUE`` words by name; None for a bare name. Raises InvalidInput."""
        found: dict[str, str | None] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not name:
                raise InvalidInput(f"invalid value {word!r}: want NAME=VALUE")
            found[name] = value if equals else None
        return found


_OPTIONS = (
    click.option("-t", "--tag", multiple=True, metavar="NAME[:TAG]", help="Name the image; may be repeated"),
    click.option(
        "-f", "--file", metavar="PATH", help="Dockerfile, its URL, or - for standard input  [PATH/Dockerfile]"
    ),
    click.option("--ignorefile", type=click.Path(path_type=Path), metavar="FILE", help="Ignore file  [.dockerignore]"),
    click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="Set an ARG"),
    click.option(
        "--build-arg-file", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Set ARGs, a line each"
    ),
    click.option("--build-context", multiple=True, metavar="NAME=VALUE", help="A directory, URL or image under a name"),
    click.option("--check", is_flag=True, help="Check the Dockerfile and build nothing"),
    click.option("--call", default="build", metavar="METHOD", help="build, check, outline or targets[,format=json]"),
    click.option("--target", default="", metavar="STAGE", help="Stage to build  [the last]"),
    click.option("--label", multiple=True, metavar="NAME=VALUE", help="Add a label"),
    click.option("--platform", multiple=True, metavar="OS/ARCH,...", help="Platforms to build for  [this machine's]"),
    click.option("--pull", is_flag=True, help="Look for newer base images"),
    click.option("--tls-verify/--no-tls-verify", default=True, help="Verify registries' certificates"),
    click.option("--network", type=click.Choice(["default", "none", "host"]), default="default", help="Network of RUN"),
    click.option(
        "--allow", multiple=True, metavar="ENTITLEMENT,...", help="Let RUN ask for network.host or security.insecure"
    ),
    click.option("--secret", multiple=True, metavar="id=NAME[,src=FILE|env=NAME]", help="For RUN --mount=type=secret"),
    click.option("--ssh", multiple=True, metavar="default|ID=SOCKET", help="For RUN --mount=type=ssh"),
    click.option(
        "--add-host", multiple=True, metavar="NAME:ADDRESS", help="A host name for RUN; host-gateway is the host"
    ),
    click.option("--shm-size", default="", metavar="BYTES", help="Size of /dev/shm in RUN  [64m]"),
    click.option("-m", "--memory", default="", metavar="BYTES", help="Memory limit of a RUN"),
    click.option("--cpu-quota", type=int, metavar="MICROSECONDS", help="Processor time of a RUN in each period"),
    click.option("--cpu-period", type=int, metavar="MICROSECONDS", help="The period that --cpu-quota is of  [100000]"),
    click.option("-c", "--cpu-shares", type=int, metavar="WEIGHT", help="Relative weight of a RUN's processor time"),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="Processors that RUN may use, such as 0-3,5"),
    click.option(
        "--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="A resource limit in RUN, such as nofile=1024"
    ),
    click.option("--host-ca", is_flag=True, help="Let RUN trust the certificates that this host trusts"),
    click.option("--no-cache", is_flag=True, help="Do not use the build cache"),
    click.option("--no-cache-filter", multiple=True, metavar="STAGE,...", help="Do not use the cache for these stages"),
    click.option("--cache-from", multiple=True, metavar="type=T,...", help="Use the cache of builds elsewhere"),
    click.option("--cache-to", multiple=True, metavar="type=T,...", help="Leave the cache for builds elsewhere"),
    click.option("--jobs", type=click.IntRange(1, 64), metavar="N", help="Steps at once  [processors + 2]"),
    click.option("--progress", default="auto", metavar="MODE", help="auto, plain, tty, quiet, rawjson, none"),
    click.option("-o", "--output", multiple=True, metavar="type=T,...", help="Where the result goes  [type=image]"),
    click.option("--push", is_flag=True, help="Push the image: -o type=registry"),
    click.option("--load", is_flag=True, help="Keep the image in the store: -o type=image"),
    click.option("--format", type=click.Choice(["oci", "docker", "v2s2"]), default="oci", help="Kind of image"),
    click.option("--annotation", multiple=True, metavar="[TYPE:]KEY=VALUE", help="Annotate the manifest, or the index"),
    click.option("--squash", is_flag=True, help="Put all new layers into one"),
    click.option("--layers/--no-layers", default=True, help="A cached layer a step; without: none cached, one layer"),
    click.option(
        "--isolation",
        type=click.Choice(["auto", "default", "namespaces", "oci", "rootless", "chroot", "emulated", "strict"]),
        default="auto",
        help="How RUN is kept apart: the strongest that works; strict refuses what is weaker than namespaces",
    ),
    click.option("--shell-on-failure", is_flag=True, help="Open a shell where a RUN failed"),
    click.option("--omit-history", is_flag=True, help="Leave the history out of the image"),
    click.option(
        "--timestamp", type=click.IntRange(0), metavar="SECONDS", help="Latest time of files, time of history"
    ),
    click.option("--source-date-epoch", type=click.IntRange(0), metavar="SECONDS", help="The same as --timestamp"),
    click.option("--rewrite-timestamp", is_flag=True, help="Accepted: file times always are what --timestamp says"),
    click.option("--verify-reproducible", is_flag=True, help="Build twice and show what differs"),
    click.option("--metadata-file", type=click.Path(path_type=Path), metavar="FILE", help="Write digests to a file"),
    click.option("-q", "--quiet", is_flag=True, help="Print the image id alone"),
    click.option("--iidfile", type=click.Path(path_type=Path), metavar="FILE", help="Write the image id to a file"),
    click.option("--graph", type=click.Choice(["dot", "mermaid", "svg"]), help="Print the graph and build nothing"),
)


_WITHOUT_EFFECT = (
    click.option("--rm/--no-rm", default=True, hidden=True, expose_value=False),
    click.option("--force-rm", is_flag=True, hidden=True, expose_value=False),
    click.option("--builder", hidden=True, expose_value=False),
    click.option(
        "--provenance",
        callback=lambda _, option, value: _no_attestation(option, value),
        hidden=True,
        expose_value=False,
    ),
    click.option(
        "--sbom", callback=lambda _, option, value: _no_attestation(option, value), hidden=True, expose_value=False
    ),
)
"""What scripts for docker, buildx and podman pass: containers of steps never stay, there is no
builder to choose, and no attestation is made unasked."""


def _no_attestation(option: click.Parameter, value: str | None) -> None:
    if value not in {None, "false"}:
        raise InvalidInput(f"--{option.name}={value}: attestations are not supported, only {option.name}=false is")


def build_options(command: _F) -> _F:
    """All flags of ``tierce build``, in the order of the help."""
    for option in reversed((*_OPTIONS, *_WITHOUT_EFFECT)):
        command = option(command)
    return command
