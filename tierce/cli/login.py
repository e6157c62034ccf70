"""``login`` and ``logout``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from image.errors import InvalidInput, NotFound
from tierce.cli.command import Settings
from tierce.cli.declare import PATH, WrongUsage, argument, command, option
from tierce.cli.foreign_flags import accepted
from tierce.cli.output import echo
from tierce.cli.terminal import is_terminal

_HUB: Final = "docker.io"


@command(
    "login",
    short_help="Keep a password for a registry",
    examples="""
tierce login registry.example.com
pass show registry | tierce login -u alice --password-stdin registry.example.com
""",
)
@argument("server", required=False, default=_HUB, metavar="[SERVER]")
@option("-u", "--username", help="Name of the user")
@option("-p", "--password", help="Password or token; others may see it in the list of processes")
@option("--password-stdin", is_flag=True, help="Read the password or token from standard input")
@option("--get-login", is_flag=True, help="Print the user that is logged in, and do nothing else")
@option("--authfile", metavar="FILE", help="Where to keep it  [docker's config.json]")
@option(
    "--cert-dir",
    metavar="DIR",
    type=PATH,
    help="Certificates of the registry: *.crt, X.cert with X.key",
)
@accepted("-v", "--verbose")
@option("--tls-verify/--no-tls-verify", default=True, help="Demand https with a valid certificate  [on]")
def login(
    settings: Settings, server: str, username: str | None, password: str | None, password_stdin: bool,
    get_login: bool, authfile: str | None, tls_verify: bool, cert_dir: Path | None,
) -> None:  # fmt: skip
    """Check a password with a registry and keep it for later pulls and pushes.

    SERVER is Docker Hub when it is left out.
    """
    from tierce.cli.transfer import open_registries
    from tierce.registries import user_credentials
    from transfer.registry.credential import Credential

    domain = registry_domain(server)
    if get_login:
        found = user_credentials(settings.environ, authfile).find(domain)
        if found is None:
            raise NotFound(f"not logged in to {domain}")
        echo(found.username or "<token>")
        return
    username, password = _ask(username, password, from_stdin=password_stdin)
    credential = Credential(username, password)
    with open_registries(settings, tls_verify=tls_verify, authfile=authfile, cert_dir=cert_dir) as registries:
        registries.check_login(domain, credential)
    user_credentials(settings.environ, authfile).login(domain, credential)
    echo("Login Succeeded")


def registry_domain(server: str) -> str:
    """The host of a registry, also when it is given as a URL."""
    domain = server.partition("://")[2] or server
    domain = domain.partition("/")[0]
    return _HUB if domain in {"index.docker.io", "registry-1.docker.io"} else domain


def _ask(username: str | None, password: str | None, *, from_stdin: bool) -> tuple[str, str]:
    """Name and password from flags, standard input or the terminal. Raises InvalidInput."""
    if from_stdin:
        if password is not None:
            raise WrongUsage("--password and --password-stdin are mutually exclusive")
        if not username:
            raise WrongUsage("must provide --username with --password-stdin")
        if not (password := sys.stdin.readline().rstrip("\r\n")):
            raise InvalidInput("login: the password on standard input is empty")
        return username, password
    if (username is None or password is None) and not is_terminal(sys.stdin):
        raise InvalidInput(
            "cannot perform an interactive login from a non-terminal: use --username and --password-stdin"
        )
    import click  # to ask a user can wait

    username = username or click.prompt("Username", err=True)
    if password is None:
        password = click.prompt("Password", hide_input=True, err=True)
    if not username or not password:
        raise InvalidInput("login: username and password are needed")
    return username, password


@command(
    "logout",
    short_help="Forget the password for a registry",
    examples="""
tierce logout registry.example.com
tierce logout --all
""",
)
@argument("server", required=False, metavar="[SERVER]")
@option("-a", "--all", "everything", is_flag=True, help="Forget the passwords for all registries")
@option("--authfile", metavar="FILE", help="Where it is kept  [docker's config.json]")
@accepted("--tls-verify/--no-tls-verify")
def logout(settings: Settings, server: str | None, everything: bool, authfile: str | None) -> None:
    """Forget the password for a registry. SERVER is Docker Hub when it is left out."""
    from tierce.registries import user_credentials

    credentials = user_credentials(settings.environ, authfile)
    if everything:
        if server is not None:
            raise WrongUsage("--all takes no SERVER")
        count = credentials.logout_everywhere()
        echo(f"Removed login credentials for {count} {'registry' if count == 1 else 'registries'}")
        return
    domain = registry_domain(server or _HUB)
    known = credentials.logout(domain)
    echo(f"Removing login credentials for {domain}" if known else f"Not logged in to {domain}")
