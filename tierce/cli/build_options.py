"""``tierce build``'s flags as the command line knows them, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from tierce.cli.command import Command

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option("-t", "--tag", multiple=True, metavar="NAME[:TAG]", help="Name the image; may be repeated"),
    click.option("--manifest", default="", metavar="LIST", help="Add the image to a manifest list in the store"),
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
    click.option("--os", default="", metavar="OS", help="A part of --platform"),
    click.option("--arch", default="", metavar="ARCH", help="A part of --platform"),
    click.option("--variant", default="", metavar="VARIANT", help="A part of --platform"),
    click.option("--from", "from_", default="", metavar="IMAGE", help="Instead of the image of the first FROM"),
    click.option(
        "--pull",
        "--pull-always",
        "--pull-newer",
        "--pull-ifnewer",
        "pull",
        is_flag=True,
        help="Look for newer base images; --pull=never takes none but the store's",
    ),
    click.option("--pull-never", is_flag=True, hidden=True),
    click.option("--tls-verify/--no-tls-verify", default=True, help="Verify registries' certificates"),
    click.option("--creds", metavar="USER[:PASSWORD]", help="Credentials for this build alone"),
    click.option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files"),
    click.option("--cert-dir", metavar="DIR", type=click.Path(path_type=Path), help="Certificates of registries"),
    click.option("--retry", metavar="N", type=click.IntRange(0, 100), help="Tries after the first of a transfer  [4]"),
    click.option("--retry-delay", metavar="TIME", help="Wait this long between tries  [longer each time]"),
    click.option(
        "--network",
        type=click.Choice(["default", "none", "host", "bridge", "private"]),
        default="default",
        help="Network of RUN",
    ),
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
    click.option("--memory-swap", default="", metavar="BYTES", help="Memory and swap together; -1 is no limit"),
    click.option("--cpu-quota", type=int, metavar="MICROSECONDS", help="Processor time of a RUN in each period"),
    click.option("--cpu-period", type=int, metavar="MICROSECONDS", help="The period that --cpu-quota is of  [100000]"),
    click.option("-c", "--cpu-shares", type=int, metavar="WEIGHT", help="Relative weight of a RUN's processor time"),
    click.option("--cpuset-cpus", default="", metavar="LIST", help="Processors that RUN may use, such as 0-3,5"),
    click.option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes that RUN may use"),
    click.option("--cgroup-parent", default="", metavar="GROUP", help="Control group above those of RUN"),
    click.option("--cap-add", multiple=True, metavar="CAPABILITY,...", help="One more capability for RUN"),
    click.option("--cap-drop", multiple=True, metavar="CAPABILITY,...", help="One less"),
    click.option("--security-opt", multiple=True, metavar="OPTION", help="seccomp=FILE|unconfined, no-new-privileges"),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="Name server for RUN"),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Search domain for RUN"),
    click.option("--dns-option", multiple=True, metavar="OPTION", help="For RUN's resolv.conf"),
    click.option(
        "-v", "--volume", multiple=True, metavar="PATH:TARGET[:ro]", help="Files of this machine that every RUN sees"
    ),
    click.option("--http-proxy/--no-http-proxy", default=True, help="Let RUN see this machine's proxies  [on]"),
    click.option(
        "--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="A resource limit in RUN, such as nofile=1024"
    ),
    click.option("--host-ca", is_flag=True, help="Let RUN trust the certificates that this host trusts"),
    click.option("--no-cache", is_flag=True, help="Do not use the build cache"),
    click.option("--no-cache-filter", multiple=True, metavar="STAGE,...", help="Do not use the cache for these stages"),
    click.option("--cache-ttl", default="", metavar="TIME", help="Do again what was cached before that, such as 24h"),
    click.option("--cache-from", multiple=True, metavar="type=T,...", help="Use the cache of builds elsewhere"),
    click.option("--cache-to", multiple=True, metavar="type=T,...", help="Leave the cache for builds elsewhere"),
    click.option("--jobs", type=click.IntRange(1, 64), metavar="N", help="Steps at once  [processors + 2]"),
    click.option("--progress", default="auto", metavar="MODE", help="auto, plain, tty, quiet, rawjson, none"),
    click.option("-o", "--output", multiple=True, metavar="type=T,...", help="Where the result goes  [type=image]"),
    click.option("--push", is_flag=True, help="Push the image: -o type=registry"),
    click.option("--load", is_flag=True, help="Keep the image in the store: -o type=image"),
    click.option("--format", type=click.Choice(["oci", "docker", "v2s2"]), default="oci", help="Kind of image"),
    click.option("--annotation", multiple=True, metavar="[TYPE:]KEY=VALUE", help="Annotate the manifest, or the index"),
    click.option("--provenance", default="", metavar="mode=min|max", help="Attest how the image was made  [false]"),
    click.option("--attest", multiple=True, metavar="type=provenance,...", help="The same as --provenance"),
    click.option("--sbom", default="", hidden=True),
    click.option("--squash", is_flag=True, help="Put all new layers into one"),
    click.option("--squash-all", is_flag=True, help="Put all layers into one, those of the base image too"),
    click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable of the image"),
    click.option("--unsetenv", multiple=True, metavar="NAME", help="Take a variable from the image"),
    click.option("--unsetlabel", multiple=True, metavar="NAME", help="Take a label from the image"),
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


class BuildCommand(Command):
    """Learns the flags of other tools when it sees one that it does not have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, list(args))
        except (click.NoSuchOption, click.BadOptionUsage):
            from tierce.cli.build_foreign import foreign_options

            known = {name for option in self.params for name in option.opts}
            self.params += [option for option in foreign_options() if known.isdisjoint(option.opts)]
            return super().parse_args(ctx, args)


def build_options(command: _F) -> _F:
    """All flags of ``tierce build``. A ``BuildCommand`` has those of other tools, too."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
