"""Ask a server over HTTP that may still be starting."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable


def fetch(url: str, *, timeout_s: float = 20, alive: Callable[[], bool] = lambda: True) -> str:
    """The body of ``url``, asked again until it answers; fails early once ``alive`` says no."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with opener.open(url, timeout=5) as reply:
                body: bytes = reply.read()
            return body.decode()
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            if time.monotonic() > deadline or not alive():
                raise AssertionError(f"{url} does not answer") from error
            time.sleep(0.05)
