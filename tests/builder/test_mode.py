from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builder.steps.mode import Mode
from image.errors import InvalidInput


@pytest.mark.parametrize("text", ["0", "644", "0755", "7777", "u=rwX,go=rX", "a+X", "u+s,g-w", "g=u", "o=", "+x", "-x", "u=rw,g=u,o=g", "+t", "a-x+X", "ug=rw"])  # fmt: skip
@pytest.mark.parametrize("before", [0o644, 0o755, 0o4750, 0o1777, 0])
@pytest.mark.parametrize("is_directory", [False, True], ids=["file", "directory"])
def test_the_same_as_chmod(tmp_path: Path, text: str, before: int, is_directory: bool) -> None:
    """GNU chmod, which keeps the set-id bits of directories where docker does not."""
    if is_directory:
        before &= 0o1777
    path = tmp_path / "x"
    path.mkdir() if is_directory else path.touch()
    path.chmod(before)
    subprocess.run(["sh", "-c", 'umask 0; exec chmod -- "$0" "$1"', text, path], check=True)
    assert oct(Mode.parse(text).apply(before, is_directory=is_directory)) == oct(path.stat().st_mode & 0o7777)


@pytest.mark.parametrize("text", ["", "8", "77777777", "10000", "u", "u=q", "x=r", "u=rw;g=r"])
def test_malformed_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid chmod parameter"):
        Mode.parse(text)
