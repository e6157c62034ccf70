"""Hooks of the host: programs that a bundle wants run at moments of its container's life.

Those of the container's own namespaces are run by ``child``.

Spec: runtime-spec 1.2, "POSIX-platform Hooks".
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

from image.errors import TierceError
from runner.runtime.spec import Hook


def encode_state(state: dict[str, Any]) -> bytes:
    """Compact, since ``child`` changes the status in it."""
    return json.dumps(state, separators=(",", ":")).encode()


def run_hooks(kind: str, hooks: Iterable[Hook], state: bytes) -> None:
    """One after the other, ``state`` on their standard input. Raises TierceError at the first that fails."""
    for hook in hooks:
        try:
            done = subprocess.run(
                hook.args or (hook.path,),
                executable=hook.path,
                env=dict(item.split("=", 1) for item in hook.env if "=" in item),
                input=state,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=hook.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TierceError(f"{kind} hook {hook.path} ran longer than {hook.timeout_s} s") from None
        except OSError as error:
            raise TierceError(f"{kind} hook {hook.path}: {error.strerror}") from error
        if done.returncode:
            said = done.stdout[-1000:].decode("utf-8", "replace").strip()
            raise TierceError(f"{kind} hook {hook.path}: exit status {done.returncode}{f': {said}' if said else ''}")
