"""``tierce build``'s flags as the command line knows them, in the order of its help."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tierce.cli.declare import PATH, Choice, IntRange, Option, option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])


_OPTIONS: Final = (
    option("-t", "--tag", multiple=True, metavar="NAME[:TAG]", help="Name the image; may be repeated"),
    option("--manifest", default="", metavar="LIST", help="Add the image to a manifest list in the store"),
    option("-f", "--file", metavar="PATH", help="Dockerfile, its URL, or - for standard input  [PATH/Dockerfile]"),
    option("--ignorefile", type=PATH, metavar="FILE", help="Ignore file  [.dockerignore]"),
    option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="Set an ARG"),
    option("--build-arg-file", multiple=True, type=PATH, metavar="FILE", help="Set ARGs, a line each"),
    option("--build-context", multiple=True, metavar="NAME=VALUE", help="A directory, URL or image under a name"),
    option("--check", is_flag=True, help="Check the Dockerfile and build nothing"),
    option("--call", default="build", metavar="METHOD", help="build, check, outline or targets[,format=json]"),
    option("--target", default="", metavar="STAGE", help="Stage to build  [the last]"),
    option("--label", multiple=True, metavar="NAME=VALUE", help="Add a label"),
    option("--platform", multiple=True, metavar="OS/ARCH,...", help="Platforms to build for  [this machine's]"),
    option("--os", default="", metavar="OS", help="A part of --platform"),
    option("--arch", default="", metavar="ARCH", help="A part of --platform"),
    option("--variant", default="", metavar="VARIANT", help="A part of --platform"),
    option("--from", "from_", default="", metavar="IMAGE", help="Instead of the image of the first FROM"),
    option(
        "--pull",
        "--pull-always",
        "--pull-newer",
        "--pull-ifnewer",
        "pull",
        is_flag=True,
        help="Look for newer base images; --pull=never takes none but the store's",
    ),
    option("--pull-never", is_flag=True, hidden=True),
    option("--tls-verify/--no-tls-verify", default=True, help="Verify registries' certificates"),
    option("--creds", metavar="USER[:PASSWORD]", help="Credentials for this build alone"),
    option("--authfile", metavar="FILE", help="Credentials instead of docker's and podman's files"),
    option("--cert-dir", metavar="DIR", type=PATH, help="Certificates of registries"),
    option("--retry", metavar="N", type=IntRange(0, 100), help="Tries after the first of a transfer  [4]"),
    option("--retry-delay", metavar="TIME", help="Wait this long between tries  [longer each time]"),
    option(
        "--network",
        type=Choice(("default", "none", "host", "bridge", "private")),
        default="default",
        help="Network of RUN",
    ),
    option(
        "--allow", multiple=True, metavar="ENTITLEMENT,...", help="Let RUN ask for network.host or security.insecure"
    ),
    option("--secret", multiple=True, metavar="id=NAME[,src=FILE|env=NAME]", help="For RUN --mount=type=secret"),
    option("--ssh", multiple=True, metavar="default|ID=SOCKET", help="For RUN --mount=type=ssh"),
    option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="A host name for RUN; host-gateway is the host"),
    option("--shm-size", default="", metavar="BYTES", help="Size of /dev/shm in RUN  [64m]"),
    option("-m", "--memory", default="", metavar="BYTES", help="Memory limit of a RUN"),
    option("--memory-swap", default="", metavar="BYTES", help="Memory and swap together; -1 is no limit"),
    option("--cpu-quota", type=int, metavar="MICROSECONDS", help="Processor time of a RUN in each period"),
    option("--cpu-period", type=int, metavar="MICROSECONDS", help="The period that --cpu-quota is of  [100000]"),
    option("-c", "--cpu-shares", type=int, metavar="WEIGHT", help="Relative weight of a RUN's processor time"),
    option("--cpuset-cpus", default="", metavar="LIST", help="Processors that RUN may use, such as 0-3,5"),
    option("--cpuset-mems", default="", metavar="LIST", help="Memory nodes that RUN may use"),
    option("--cgroup-parent", default="", metavar="GROUP", help="Control group above those of RUN"),
    option("--cap-add", multiple=True, metavar="CAPABILITY,...", help="One more capability for RUN"),
    option("--cap-drop", multiple=True, metavar="CAPABILITY,...", help="One less"),
    option("--security-opt", multiple=True, metavar="OPTION", help="seccomp=FILE|unconfined, no-new-privileges"),
    option("--dns", multiple=True, metavar="ADDRESS", help="Name server for RUN"),
    option("--dns-search", multiple=True, metavar="DOMAIN", help="Search domain for RUN"),
    option("--dns-option", multiple=True, metavar="OPTION", help="For RUN's resolv.conf"),
    option(
        "-v", "--volume", multiple=True, metavar="PATH:TARGET[:ro]", help="Files of this machine that every RUN sees"
    ),
    option("--http-proxy/--no-http-proxy", default=True, help="Let RUN see this machine's proxies  [on]"),
    option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="A resource limit in RUN, such as nofile=1024"),
    option("--host-ca", is_flag=True, help="Let RUN trust the certificates that this host trusts"),
    option("--no-cache", is_flag=True, help="Do not use the build cache"),
    option("--no-cache-filter", multiple=True, metavar="STAGE,...", help="Do not use the cache for these stages"),
    option("--cache-ttl", default="", metavar="TIME", help="Do again what was cached before that, such as 24h"),
    option("--cache-from", multiple=True, metavar="type=T,...", help="Use the cache of builds elsewhere"),
    option("--cache-to", multiple=True, metavar="type=T,...", help="Leave the cache for builds elsewhere"),
    option("--jobs", type=IntRange(1, 64), metavar="N", help="Steps at once  [processors + 2]"),
    option("--progress", default="auto", metavar="MODE", help="auto, plain, tty, quiet, rawjson, none"),
    option("-o", "--output", multiple=True, metavar="type=T,...", help="Where the result goes  [type=image]"),
    option("--push", is_flag=True, help="Push the image: -o type=registry"),
    option("--load", is_flag=True, help="Keep the image in the store: -o type=image"),
    option("--format", type=Choice(("oci", "docker", "v2s2")), default="oci", help="Kind of image"),
    option("--annotation", multiple=True, metavar="[TYPE:]KEY=VALUE", help="Annotate the manifest, or the index"),
    option("--provenance", default="", metavar="mode=min|max", help="Attest how the image was made  [false]"),
    option("--attest", multiple=True, metavar="type=provenance,...", help="The same as --provenance"),
    option("--sbom", default="", hidden=True),
    option("--squash", is_flag=True, help="Put all new layers into one"),
    option("--squash-all", is_flag=True, help="Put all layers into one, those of the base image too"),
    option("--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable of the image"),
    option("--unsetenv", multiple=True, metavar="NAME", help="Take a variable from the image"),
    option("--unsetlabel", multiple=True, metavar="NAME", help="Take a label from the image"),
    option("--layers/--no-layers", default=True, help="A cached layer a step; without: none cached, one layer"),
    option(
        "--isolation",
        type=Choice(("auto", "default", "namespaces", "oci", "rootless", "chroot", "emulated", "strict")),
        default="auto",
        help="How RUN is kept apart: the strongest that works; strict refuses what is weaker than namespaces",
    ),
    option("--shell-on-failure", is_flag=True, help="Open a shell where a RUN failed"),
    option("--omit-history", is_flag=True, help="Leave the history out of the image"),
    option("--timestamp", type=IntRange(0), metavar="SECONDS", help="Latest time of files, time of history"),
    option("--source-date-epoch", type=IntRange(0), metavar="SECONDS", help="The same as --timestamp"),
    option("--rewrite-timestamp", is_flag=True, help="Accepted: file times always are what --timestamp says"),
    option("--verify-reproducible", is_flag=True, help="Build twice and show what differs"),
    option("--metadata-file", type=PATH, metavar="FILE", help="Write digests to a file"),
    option("-q", "--quiet", is_flag=True, help="Print the image id alone"),
    option("--iidfile", type=PATH, metavar="FILE", help="Write the image id to a file"),
    option("--graph", type=Choice(("dot", "mermaid", "svg")), help="Print the graph and build nothing"),
)


def build_options(command: _F) -> _F:
    """All flags of ``tierce build``."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def foreign() -> Sequence[Option]:
    """The flags of other tools, loaded when one is seen that is not known."""
    from tierce.cli.build_foreign import foreign_options

    return foreign_options()
