"""``tierce`` inside containers of docker and podman, as their defaults have them and with less."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker
from tests.support.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer]

_IMAGE = "tierce-test-surroundings"
_PACKAGE = Path(__file__).parents[2]
_LINKS = ("bin", "sbin", "lib", "lib64")
_DIRECTORIES = {"usr": 0o755, "etc": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755, "tmp": 0o1777}

_DOCKERFILE = """
FROM busybox AS made
RUN mkdir -p /d/e && echo x > /d/f && ln /d/f /d/hard && chown -R 33:44 /d && chmod 4755 /d/f && ln -s f /d/l
RUN rm -rf /etc/network && mkdir /etc/network && ln -s d/f /l
COPY --chown=7:8 Dockerfile /copied
RUN chown 9:10 /copied && chmod 600 /copied
FROM busybox
COPY --from=made /d /d
COPY --from=made --chown=1000 /copied /l /c/
RUN ["mkdir", "-m", "777", "/z"]
USER 1000
RUN id -u > /z/mine && cat /c/copied >> /z/mine
"""
_BUILD = ("build", "--quiet", "--network=host", "--source-date-epoch=1600000000", "--tag=made")

Inside = Callable[[Sequence[str], str], str]
"""What a script prints in a container with these options."""


def _surroundings(path: Path) -> Path:
    """A root filesystem whose /usr is to be mounted: this machine's, with its interpreter."""
    if not all(os.path.realpath(f"/{name}").startswith("/usr/") for name in _LINKS):
        pytest.skip("needs a machine whose /bin and /lib are in /usr")
    passwd = b"root:x:0:0::/root:/bin/sh\n"
    with tarfile.open(path, "w") as tar:
        for name in _LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name, mode in _DIRECTORIES.items():
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        file = tarfile.TarInfo("etc/passwd")
        file.size = len(passwd)
        tar.addfile(file, io.BytesIO(passwd))
    return path


@pytest.fixture(scope="module", params=["docker", "podman"])
def inside(request: pytest.FixtureRequest, busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Inside:
    directory = tmp_path_factory.mktemp("inside")
    directory.chmod(0o755)
    (directory / "context").mkdir()
    (directory / "context/Dockerfile").write_text(_DOCKERFILE)
    (directory / "busybox.tar").write_bytes(busybox_archive.read_bytes())
    given = {Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), _PACKAGE}
    volumes = [f"--volume={path}:{path}:ro" for path in sorted(given)] + [f"--volume={directory}:/given:ro"]
    words = ("--network=none", "--env=HOME=/tmp/home", "--env=PYTHONDONTWRITEBYTECODE=1", *volumes)
    engine: Docker | Podman = request.getfixturevalue("docker" if request.param == "docker" else "podman_and_buildah")
    engine("import", _surroundings(directory / "base.tar"), _IMAGE)

    def run(options: Sequence[str], script: str) -> str:
        text = f'tierce() {{ {sys.executable} -m tierce "$@"; }}; set -e; mkdir /tmp/home; {script}'
        return engine.run(_IMAGE, "sh", "-c", text, options=(*words, *options))

    return run


@pytest.fixture(scope="module")
def digest_of_root(busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image's, built by root with namespaces."""
    directory = tmp_path_factory.mktemp("outside")
    (directory / "Dockerfile").write_text(_DOCKERFILE)
    tierce = Tierce(directory / "store")
    tierce("load", "--input", busybox_archive)
    return tierce(*_BUILD, directory).stdout


_USER = ("--user=1000",)
_BARE = ("--user=1000", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@pytest.mark.parametrize(
    ("options", "rung"),
    [((), "chroot"), (_USER, "emulated"), (_BARE, "emulated")],
    ids=["root", "user", "without-any-right"],
)
def test_builds_and_runs(inside: Inside, digest_of_root: str, options: Sequence[str], rung: str) -> None:
    """The strongest isolation that works is found and said, and the image is that of root's build."""
    script = f"""
        tierce load --quiet --input /given/busybox.tar >/dev/null
        tierce {" ".join(_BUILD)} /given/context >/tmp/digest 2>/tmp/said || {{ cat /tmp/said; exit 1; }}
        grep -o 'isolation: [a-z]* (no namespaces: [^;)]*' /tmp/said
        cat /tmp/digest
        tierce run --rm made sh -c 'id -u; stat -c %u:%g /d/f' 2>/dev/null
        tierce run --rm --user 0 busybox sh -c 'exit 7' 2>/dev/null || echo $?
        tierce run --rm busybox absent >/dev/null 2>&1 || echo $?
    """
    said, digest, *ran = inside(options, script).splitlines()
    assert said.startswith(f"isolation: {rung} (no namespaces: ")
    assert f"{digest}\n" == digest_of_root
    assert ran == ["1000", "33:44", "7", "127"]
