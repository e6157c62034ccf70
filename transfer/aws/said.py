"""What files, programs and services say of keys, read with a limit and told apart from nonsense."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from image.errors import InvalidInput, RegistryError
from transfer.aws.signing import AwsKeys

_MAX_FILE: Final = 1 << 20


def text_of(file: Path, what: str) -> str:
    """A small file. Raises InvalidInput."""
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_FILE).decode()
    except OSError as error:
        raise InvalidInput(f"read {what} {file}: {(error.strerror or '').lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"read {what} {file}: not UTF-8") from error


def object_of(text: str, who: str) -> Mapping[str, Any]:
    """A reply to a question for credentials. Raises RegistryError for what is no JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RegistryError(f"ask {who} for credentials: the reply is not a JSON object")
    return document


def decode_keys(document: Mapping[str, Any], what: str) -> AwsKeys:
    """Keys as AWS's services spell them. Raises RegistryError when there are none."""
    key, secret, token = (document.get(name) or "" for name in ("AccessKeyId", "SecretAccessKey", "Token"))
    if not all(isinstance(each, str) for each in (key, secret, token)) or not key or not secret:
        raise RegistryError(f"credentials of {what}: the reply has no keys")
    try:
        expires_s = datetime.fromisoformat(str(document["Expiration"])).timestamp()
    except (KeyError, ValueError):
        expires_s = None
    return AwsKeys(key, secret, token, expires_s)
