"""The top floor: the command line (``cli``) and the composition of everything below it.

The modules beside ``cli`` hold what is more than flags (finding an image by what a user
typed, running one, checking the store), so that other front doors can use them too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERSION: Final = "0.1.0"
"""The same as pyproject.toml's; here because reading package metadata costs a start-up."""
