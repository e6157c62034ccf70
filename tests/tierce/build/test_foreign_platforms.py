"""RUN for another architecture, by an emulator that the kernel knows."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.foreign import arm64_program, with_emulator
from tests.support.process import command, need

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM scratch
ARG TARGETARCH
COPY program.$TARGETARCH /program
USER 7
RUN ["/program"]
"""
STAND_IN = r"""
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) { printf("emulated %s as %d\n", words[1], (int)getuid()); return count < 2; }
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    if platform.machine() != "x86_64":
        pytest.skip("needs an amd64 machine, for which arm64 is foreign")
    release = tuple(int(number) for number in platform.release().split(".")[:2])
    if release < (6, 7) or "binfmt_misc" not in Path("/proc/filesystems").read_text():
        pytest.skip("needs Linux 6.7 with binfmt_misc, for handlers of a namespace's own")
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "program.arm64").write_bytes(arm64_program())
    (tmp_path / "native.c").write_text(
        '#include <unistd.h>\nint main(void) { return write(1, "amd64 spoke\\n", 12) != 12; }'
    )
    command([need("gcc"), "-static", "-o", directory / "program.amd64", tmp_path / "native.c"])
    for program in directory.glob("program.*"):
        program.chmod(0o755)
    return directory


def said(tierce: Tierce, context: Path, emulator: Path) -> list[str]:
    """What the RUN of each platform wrote, and where the index ends up."""
    layout = context.parent / "layout"
    build = (
        "build", "--progress=plain", "--network=none", "--platform=linux/amd64,linux/arm64",
        "-o", f"type=oci,tar=false,dest={layout}", context,
    )  # fmt: skip
    argv = with_emulator(emulator, tierce.argv(*build))
    done = subprocess.run(argv, capture_output=True, text=True, env=tierce.env(), check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 2)[2] for line in done.stderr.splitlines() if "spoke" in line or "emulated" in line]
    assert (layout / "index.json").is_file()
    return lines


def test_an_emulator_runs_steps_of_its_platform_alone(tmp_path: Path, context: Path) -> None:
    """The kernel opened it when it was registered, so no file of it is in the image."""
    (tmp_path / "stand-in.c").write_text(STAND_IN)
    command([need("gcc"), "-static", "-o", tmp_path / "stand-in", tmp_path / "stand-in.c"])
    lines = said(Tierce(tmp_path / "root"), context, tmp_path / "stand-in")
    assert lines == ["amd64 spoke", "emulated /program as 7"]


def test_qemu_runs_programs_of_arm64(tmp_path: Path, context: Path) -> None:
    qemu = shutil.which("qemu-aarch64-static")
    if qemu is None:
        pytest.skip("needs qemu-aarch64-static, of qemu-user-static")
    assert said(Tierce(tmp_path / "root"), context, Path(qemu)) == ["amd64 spoke", "arm64 spoke"]


def test_without_one_the_build_ends_before_it_does_anything(tmp_path: Path, context: Path) -> None:
    (context / "program.riscv64").write_bytes(arm64_program())
    done = Tierce(tmp_path / "root").attempt("build", "--platform=linux/amd64,linux/riscv64", context)
    assert done.code == 1
    assert "cannot run programs of linux/riscv64" in done.stderr
    assert "DONE" not in done.stderr
