"""The flags of ``tierce build`` as values: what the user typed, before anything is looked at."""

from __future__ import annotations

import os

from image.errors import InvalidInput, NotFound
from image.paths import Path
from image.value import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    from builder.draw import Form
    from builder.entitlements import Entitlement
    from builder.ports import HostMount
    from runner.containers.options import RunOptions
    from tierce.build.base_images import RegistryAccess

_STEP_FLAGS: Final = (
    "add_host", "shm_size", "memory", "memory_swap", "cpu_quota", "cpu_period", "cpu_shares", "cpuset_cpus", "cpuset_mems",
    "ulimit", "cgroup_parent", "cap_add", "cap_drop", "security_opt", "dns", "dns_search", "dns_option",
)  # fmt: skip
"""Those that change how a RUN runs, and not what it does."""


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
    pull_never: bool
    from_: str
    os: str
    arch: str
    variant: str
    http_proxy: bool
    # how registries are reached
    tls_verify: bool
    creds: str | None
    authfile: str | None
    cert_dir: Path | None
    retry: int | None
    retry_delay: str | None
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
    cpuset_mems: str
    memory_swap: str
    ulimit: tuple[str, ...]
    cgroup_parent: str
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_opt: tuple[str, ...]
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_option: tuple[str, ...]
    volume: tuple[str, ...]
    jobs: int | None
    no_cache: bool
    no_cache_filter: tuple[str, ...]
    cache_ttl: str
    cache_from: tuple[str, ...]
    cache_to: tuple[str, ...]
    # what comes out
    tag: tuple[str, ...]
    manifest: str
    output: tuple[str, ...]
    push: bool
    load: bool
    format: str
    annotation: tuple[str, ...]
    attest: tuple[str, ...]
    provenance: str
    sbom: str
    squash: bool
    squash_all: bool
    layers: bool
    env: tuple[str, ...]
    unsetenv: tuple[str, ...]
    unsetlabel: tuple[str, ...]
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

    @property
    def pull_policy(self) -> Literal["always", "missing", "never"]:
        return "always" if self.pull else "never" if self.pull_never else "missing"

    def entitlements(self) -> frozenset[Entitlement]:
        """What RUN may ask for; ``--network host`` gives every step the host's already. Raises InvalidInput."""
        from builder.entitlements import parse_entitlements

        return parse_entitlements((*self.allow, "network.host") if self.network == "host" else self.allow)

    @property
    def cache_ttl_s(self) -> float | None:
        """How old a cached result may be; None for any age. Raises UsageError."""
        if not self.cache_ttl:
            return None
        from tierce.cli.registry_flags import seconds_of

        return seconds_of(self.cache_ttl)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Those of ``--platform``, or the one that ``--os``, ``--arch`` and ``--variant`` make. Raises InvalidInput."""
        if not (self.os or self.arch or self.variant):
            return self.platform
        if self.platform:
            raise InvalidInput("--platform says all that --os, --arch and --variant do: give one or the others")
        from tierce.host_platform import host_platform

        here = host_platform()
        parts = (self.os or here.os, self.arch or here.architecture, self.variant)
        return ("/".join(part for part in parts if part),)

    def access(self) -> RegistryAccess:
        """How registries are reached. Raises UsageError, InvalidInput."""
        from tierce.build.base_images import RegistryAccess

        found = RegistryAccess(not self.tls_verify, self.authfile)
        if self.creds or self.cert_dir or self.retry is not None or self.retry_delay:
            from tierce.cli.registry_flags import retry_policy
            from transfer.credentials import parse_login

            found = replace(
                found,
                credential=parse_login(self.creds) if self.creds else None,
                cert_dir=self.cert_dir,
                retry=retry_policy(self.retry, self.retry_delay),
            )
        return found

    def step_options(self) -> RunOptions | None:
        """What every RUN may have beside docker's defaults; None for nothing. Raises InvalidInput."""
        if not any(getattr(self, name) for name in _STEP_FLAGS):
            return None
        from runner.containers.limits import Limits, parse_ulimit, resources
        from runner.containers.options import RunOptions
        from runner.containers.security import Security, parse_protections
        from runner.network.files import Dns
        from runner.network.wishes import NetworkOptions
        from runner.runtime.capabilities import choose
        from tierce.build.step_limits import parse_hosts
        from tierce.cli.units import parse_size
        from tierce.run import inline_seccomp

        limits = Limits(
            memory=parse_size(self.memory) if self.memory else None,
            memory_swap=-1 if self.memory_swap == "-1" else parse_size(self.memory_swap) if self.memory_swap else None,
            cpu_quota_us=self.cpu_quota,
            cpu_period_us=self.cpu_period,
            cpu_shares=self.cpu_shares,
            cpuset_cpus=self.cpuset_cpus,
            cpuset_mems=self.cpuset_mems,
            ulimits=tuple(map(parse_ulimit, self.ulimit)),
        )
        security = Security(_split(self.cap_add), _split(self.cap_drop), options=inline_seccomp(self.security_opt))
        resources(limits)  # what is wrong is said before anything is built
        choose(add=security.cap_add, drop=security.cap_drop)
        parse_protections(security.options)
        dns = Dns(_split(self.dns), _split(self.dns_search), _split(self.dns_option))
        return RunOptions(
            network=NetworkOptions(dns=dns, hosts=parse_hosts(self.add_host)),
            shm_size=parse_size(self.shm_size) if self.shm_size else None,
            cgroup_parent=self.cgroup_parent,
            limits=limits,
            security=security,
        )

    def volumes(self) -> tuple[HostMount, ...]:
        """Files of the host that every RUN sees. Raises InvalidInput, NotFound."""
        if not self.volume:
            return ()
        from builder.ports import HostMount
        from runner.volumes.short_form import parse_volume

        found = []
        for word in self.volume:
            asked = parse_volume(word, cwd=os.getcwd())
            if asked.kind != "bind":
                raise InvalidInput(f"invalid volume {word!r}: a build has no volumes: want /DIRECTORY:/TARGET[:ro]")
            if not os.path.exists(asked.source):
                raise NotFound(f"volume {word}: {asked.source} does not exist")
            found.append(HostMount(Path(asked.source), asked.target, asked.read_only))
        return tuple(found)

    def pairs(self, words: tuple[str, ...]) -> dict[str, str | None]:
        """``NAME=VALUE`` words by name; None for a bare name. Raises InvalidInput."""
        found: dict[str, str | None] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not name:
                raise InvalidInput(f"invalid value {word!r}: want NAME=VALUE")
            found[name] = value if equals else None
        return found


def _split(words: tuple[str, ...]) -> tuple[str, ...]:
    """Podman's lists: repeated, or with commas."""
    return tuple(part for word in words for part in word.split(",") if part)
