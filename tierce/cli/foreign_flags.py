"""Flags of other tools that do nothing here, or can't be done: they say what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tierce.cli.declare import WrongUsage, option

_F = TypeVar("_F", bound=Callable[..., Any])
_Decorator = Callable[[_F], _F]

_SIGNING = "Tierce signs nothing: sign the copy with cosign sign, or copy with skopeo"
_ENCRYPTION = "layers are neither encrypted nor decrypted here: copy with skopeo"


def refused(*names: str, instead: str, value: bool = True) -> _Decorator[Any]:
    """A flag that ends the command with what to do ``instead``."""

    def refuse(_settings: object, name: str, given: Any) -> None:
        if given:
            raise WrongUsage(f"{name} is not supported: {instead}")

    return _hidden(names, value=value, callback=refuse)


def accepted(*names: str, value: bool = False) -> _Decorator[Any]:
    """A flag that asks for what is done anyway."""
    return _hidden(names, value=value, callback=lambda _settings, _name, _given: None)


def _hidden(names: tuple[str, ...], *, value: bool, callback: Callable[..., None]) -> _Decorator[Any]:
    return option(*names, hidden=True, expose_value=False, is_flag=not value, callback=callback, default=None)


def signing_flags(function: _F) -> _F:
    """skopeo's flags that sign a copy."""
    for name in ("sign-by", "sign-by-sigstore", "sign-by-sigstore-private-key", "sign-by-sq-fingerprint",
                 "sign-identity", "sign-passphrase-file"):  # fmt: skip
        function = refused(f"--{name}", instead=_SIGNING)(function)
    return function


def encryption_flags(function: _F) -> _F:
    """skopeo's flags for encrypted layers."""
    for name in ("encryption-key", "encrypt-layer", "decryption-key"):
        function = refused(f"--{name}", instead=_ENCRYPTION)(function)
    return function
