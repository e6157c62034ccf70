"""Who a user is at a registry, as a value. Light, so that reading credentials loads no HTTP."""

from __future__ import annotations

import base64
from typing import Final

from image.value import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """Who to be at a registry. Secrets stay out of ``repr``.

    ``identity_token`` is exchanged for access tokens; ``registry_token`` is one already.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS: Final = Credential()
