"""Flags about registries that several commands share: either end of a copy, and repeated tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tierce.cli.command import Settings
from tierce.cli.declare import DIRECTORY, PATH, IntRange, WrongUsage, option
from tierce.cli.transfer import docker_engine, open_registries, registry_options

if TYPE_CHECKING:
    from transfer.docker_engine import Engine
    from transfer.registries import Registries
    from transfer.registry.credential import Credential
    from transfer.registry.retry import Retry
    from transfer.sync.rules import Access

_F = TypeVar("_F", bound=Callable[..., Any])


def side_options(prefix: str, where: str) -> Callable[[_F], _F]:
    """skopeo's flags for one end, such as ``--src-creds``: see ``Side.take``."""

    def add(function: _F) -> _F:
        for add in (
            option(f"--{prefix}-registry-token", metavar="TOKEN", help=f"Bearer token for {where}"),
            option(f"--{prefix}-cert-dir", metavar="DIR", type=DIRECTORY,
                         help=f"*.crt, *.cert and *.key for {where}"),
            option(f"--{prefix}-authfile", metavar="FILE", help=f"Credentials' file for {where}"),
            option(f"--{prefix}-tls-verify/--{prefix}-no-tls-verify", default=True,
                         help=f"Demand valid https at {where}  [on]"),
            option(f"--{prefix}-no-creds", is_flag=True, help=f"No credentials at {where}"),
            option(f"--{prefix}-password", metavar="PASSWORD", help=f"Password at {where}"),
            option(f"--{prefix}-username", metavar="USER", help=f"User at {where}"),
            option(f"--{prefix}-creds", metavar="USER[:PASSWORD]", help=f"Credentials at {where}"),
        ):  # fmt: skip
            function = add(function)
        return function

    return add


def daemon_option(prefix: str, where: str) -> Callable[[_F], _F]:
    """Which docker daemon one end means: see ``Side.take``."""
    return option(f"--{prefix}-daemon-host", metavar="HOST", help=f"Of docker-daemon: at {where}  [DOCKER_HOST]")


def shared_blobs_option(prefix: str, where: str) -> Callable[[_F], _F]:
    """Where an ``oci:`` layout at one end keeps its blobs: see ``Side.take``."""
    return option(
        f"--{prefix}-shared-blob-dir", metavar="DIR", type=PATH,
        help=f"Blobs of oci: at {where}, shared by several  [the layout's own]",
    )  # fmt: skip


class Side(NamedTuple):
    """How one end of a copy reaches registries."""

    credential: Credential | None
    authfile: str | None
    tls_verify: bool
    cert_dir: Path | None
    daemon_host: str | None = None
    shared_blobs: Path | None = None

    @classmethod
    def take(cls, prefix: str, flags: Mapping[str, Any], authfile: str | None = None) -> Side:
        """What ``side_options(prefix)`` were set to; ``authfile`` where they name none."""
        return cls(
            _credential(prefix, flags),
            flags[f"{prefix}_authfile"] or authfile,
            flags[f"{prefix}_tls_verify"],
            flags[f"{prefix}_cert_dir"],
            flags.get(f"{prefix}_daemon_host"),
            flags.get(f"{prefix}_shared_blob_dir"),
        )

    def overridden(self, access: Access, *, own: bool = True) -> Side:
        """The same with what a file says of one registry; without ``own``, the user's credentials are not asked."""
        from transfer.registry.credential import ANONYMOUS, Credential

        credential = self.credential if own else ANONYMOUS
        if access.user or access.token:
            credential = Credential(access.user, access.password, identity_token=access.token)
        return Side(
            credential,
            self.authfile,
            self.tls_verify and not access.insecure,
            Path(access.certificates) if access.certificates else self.cert_dir,
            self.daemon_host,
            self.shared_blobs,
        )

    def docker(self, settings: Settings) -> Callable[[], Engine]:
        """The docker daemon of this end."""
        return docker_engine(settings, self.daemon_host, self.cert_dir, tls_verify=self.tls_verify)

    def registries(
        self,
        settings: Settings,
        retry: Retry | None = None,
        *,
        destination: bool = False,
        create_repository: bool = False,
    ) -> AbstractContextManager[Registries]:
        return open_registries(
            settings,
            tls_verify=self.tls_verify,
            authfile=self.authfile,
            credential=self.credential,
            cert_dir=self.cert_dir,
            retry=retry,
            create_repository=create_repository,
            destination=destination,
        )


def login_options(function: _F) -> _F:
    """skopeo's flags of commands with one registry, beside ``registry_options``: see ``one_side``."""
    for add in (
        option("--registry-token", metavar="TOKEN", help="Bearer token for the registry"),
        option("--no-creds", is_flag=True, help="No credentials"),
        option("--password", metavar="PASSWORD", help="Password at the registry"),
        option("--username", metavar="USER", help="User at the registry"),
    ):
        function = add(function)
    return registry_options(retry_options(function))


def one_side(flags: dict[str, Any]) -> dict[str, Any]:
    """What ``login_options`` were set to, as ``open_registries`` takes it. Raises UsageError."""
    own = {f"_{name}": flags.pop(name) for name in ("creds", "username", "password", "registry_token", "no_creds")}
    retry = retry_policy(flags.pop("retry_times"), flags.pop("retry_delay"))
    return {**flags, "credential": _credential("", own), "retry": retry}


def _credential(prefix: str, flags: Mapping[str, Any]) -> Credential | None:
    from transfer.credentials import parse_login
    from transfer.registry.credential import ANONYMOUS, Credential

    creds, username, password = (flags[f"{prefix}_{name}"] for name in ("creds", "username", "password"))
    token, none = flags[f"{prefix}_registry_token"], flags[f"{prefix}_no_creds"]
    dash = f"--{prefix}-" if prefix else "--"
    if sum(map(bool, (creds, username or password, token, none))) > 1:
        alone = ", ".join(f"{dash}{name}" for name in ("creds", "username", "registry-token", "no-creds"))
        raise WrongUsage(f"{alone} are mutually exclusive")
    if bool(username) != bool(password):
        raise WrongUsage(f"{dash}username and {dash}password go together")
    if none:
        return ANONYMOUS
    if token:
        return Credential(registry_token=token)
    if username:
        return Credential(username, password)
    return parse_login(creds) if creds else None


def retry_options(function: _F) -> _F:
    """``--retry-times`` and ``--retry-delay``: see ``retry_policy``."""
    for add in (
        option("--retry-delay", metavar="TIME", help="Wait this long between tries, such as 5s  [longer each time]"),
        option("--retry-times", metavar="N", type=IntRange(0, 100), help="Tries after the first  [4]"),
    ):  # fmt: skip
        function = add(function)
    return function


def retry_policy(times: int | None, delay: str | None) -> Retry:
    """How often and when to try again what failed for a while. Raises UsageError."""
    from transfer.registry.retry import Retry

    attempts = 5 if times is None else times + 1
    if delay is None:
        return Retry(attempts)
    seconds = seconds_of(delay)
    return Retry(attempts, seconds, seconds, jitter=lambda: 1.0)


def seconds_of(text: str) -> float:
    """Seconds of a duration in Go's words: ``1m30s``, ``500ms``. Raises UsageError."""
    from image.durations import parse_duration_ns
    from image.errors import InvalidInput

    try:
        return parse_duration_ns(text) / 1e9
    except InvalidInput as error:
        raise WrongUsage(str(error)) from None
