"""``diff``, ``export``, ``cp`` and ``commit`` on real containers, running and stopped, beside docker's."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker

pytestmark = pytest.mark.root
CHANGES = (
    "echo x > /etc/group; rm /etc/nsswitch.conf; mkdir -p /new/sub; echo y > /new/file; rm -r /var/www; "
    "ln -s /etc/passwd /new/link; chown 7:8 /new/file; chmod 4751 /new/file"
)


def stopped(box: Tierce, script: str = CHANGES, *options: str, name: str = "web") -> str:
    box("run", "--network", "none", "--name", name, *options, "busybox", "sh", "-c", script)
    return name


def running(box: Tierce, script: str = CHANGES, *options: str, name: str = "web") -> str:
    """A container that has done ``script`` and goes on."""
    box(
        "run", "-d", "--network", "none", "--name", name, *options,
        "busybox", "sh", "-c", f"{script}; echo > /tmp/ready; exec sleep 600",
    )  # fmt: skip
    box("exec", name, "sh", "-c", "until [ -e /tmp/ready ]; do sleep 0.01; done; rm /tmp/ready")
    return name


BOTH = pytest.mark.parametrize("made", [stopped, running])


def export(box: Tierce, name: str) -> dict[str, tarfile.TarInfo]:
    done = subprocess.run(box.argv("export", name), capture_output=True, check=True, env=box.env())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {member.name: member for member in tar}


@BOTH
def test_diff(made: object, box: Tierce) -> None:
    assert callable(made)
    made(box)
    lines = box("diff", "web").stdout.splitlines()
    assert [line for line in lines if line != "C /tmp"] == [
        "C /etc", "C /etc/group", "D /etc/nsswitch.conf",
        "A /new", "A /new/file", "A /new/link", "A /new/sub",
        "C /var", "D /var/www",
    ]  # fmt: skip
    assert box("container", "diff", "web").stdout.splitlines() == lines


@pytest.mark.peer
def test_diff_is_dockers(box: Tierce, docker: Docker) -> None:
    docker("run", "--name", "diffed", "--network", "none", "busybox", "sh", "-c", CHANGES)
    stopped(box)
    assert box("diff", "web").stdout.splitlines() == sorted(
        docker("diff", "diffed").splitlines(), key=lambda line: line[2:].split("/")
    )


def test_a_container_that_did_nothing_has_no_changes(box: Tierce) -> None:
    assert box("diff", running(box, "true")).stdout in ("", "C /tmp\n")
    assert box("diff", stopped(box, "true", name="other")).stdout == ""


@BOTH
def test_export_is_the_merged_tree_without_mounts(made: object, box: Tierce, tmp_path: Path) -> None:
    assert callable(made)
    made(box, CHANGES + "; echo v > /data/inside", "-v", "/data")
    found = export(box, "web")
    assert (found["new/file"].mode, found["new/file"].uid, found["new/file"].gid) == (0o4751, 7, 8)
    assert found["new/link"].linkname == "/etc/passwd"
    assert {"data", "etc/passwd", "bin/busybox"} <= found.keys()
    assert not {"etc/nsswitch.conf", "var/www", "data/inside"} & found.keys()
    assert not any(name.startswith(("proc/", "sys/")) for name in found)
    box("export", "-o", tmp_path / "web.tar", "web")
    with tarfile.open(tmp_path / "web.tar") as tar:
        assert tar.getnames() == list(found)
    imported = box("import", tmp_path / "web.tar", "again")
    assert imported.stdout.startswith("sha256:")


def test_export_refuses_a_directory_and_keeps_what_was_there(box: Tierce, tmp_path: Path) -> None:
    box("create", "--name", "web", "busybox")
    done = box.attempt("export", "-o", tmp_path, "web")
    assert (done.code, done.stderr) == (1, f"tierce: cannot write {tmp_path}: it is a directory\n")
    (tmp_path / "kept").write_text("kept")
    assert box.attempt("export", "-o", tmp_path / "kept", "absent").code == 1
    assert (tmp_path / "kept").read_text() == "kept"


@BOTH
def test_cp_keeps_mode_owner_and_links(made: object, box: Tierce, tmp_path: Path) -> None:
    assert callable(made)
    made(box)
    box("cp", "-a", "web:/new", tmp_path)
    copied = (tmp_path / "new/file").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_uid, copied.st_gid) == (0o4751, 7, 8)
    assert os.readlink(tmp_path / "new/link") == "/etc/passwd"
    box("cp", "web:/new/file", tmp_path / "mine")
    assert ((tmp_path / "mine").stat().st_uid, (tmp_path / "mine").stat().st_gid) == (os.geteuid(), os.getegid())
    box("cp", "-L", "web:/new/link", tmp_path / "passwd")
    assert "root:x:0:0" in (tmp_path / "passwd").read_text()
    assert box("cp", tmp_path / "new", "web:/srv").stderr == ""
    if made is stopped:
        box("start", "web")
        box("wait", "web")
    found = export(box, "web")
    assert (found["srv/file"].mode, found["srv/file"].uid, found["srv/file"].gid) == (0o4751, 7, 8)
    assert found["srv/link"].issym()


def test_cp_gives_files_to_the_containers_user(box: Tierce, docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("x")
    os.chown(tmp_path / "given", 5, 6)
    for call in (docker, lambda *words: box(*words).stdout):
        call("create", "--name", "own", "--network=none", "--user", "daemon", "busybox")
        call("cp", "-a", tmp_path / "given", "own:/archived")
        call("cp", tmp_path / "given", "own:/plain")
        for name, owner in (("archived", (1, 1)), ("plain", (5, 6))):
            with tarfile.open(fileobj=io.BytesIO(call("cp", f"own:/{name}", "-").encode())) as archive:
                (entry,) = archive.getmembers()
            assert (entry.uid, entry.gid) == owner, (call, name)
        call("rm", "own")


@BOTH
def test_cp_speaks_tar(made: object, box: Tierce) -> None:
    assert callable(made)
    made(box)
    done = subprocess.run(box.argv("cp", "web:/new", "-"), capture_output=True, check=True, env=box.env())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["new", "new/file", "new/link", "new/sub"]
    packed = subprocess.run(["gzip"], input=done.stdout, capture_output=True, check=True).stdout
    subprocess.run(box.argv("cp", "-", "web:/home"), input=packed, check=True, env=box.env())
    assert "A /home/new/file" in box("diff", "web").stdout


@BOTH
def test_cp_reaches_volumes_and_binds(made: object, box: Tierce, tmp_path: Path) -> None:
    assert callable(made)
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/b").write_text("B")
    made(box, "echo v > /data/v", "-v", "vol:/data", "-v", f"{tmp_path}/bound:/data/bound:ro")
    box("cp", "web:/data", tmp_path / "out")
    assert (tmp_path / "out/v").read_text() == "v\n"
    assert (tmp_path / "out/bound/b").read_text() == "B"
    (tmp_path / "new").write_text("N")
    box("cp", tmp_path / "new", "web:/data/new")
    assert box("run", "--rm", "--network", "none", "-v", "vol:/d", "busybox", "cat", "/d/new").stdout == "N"
    refused = box.attempt("cp", tmp_path / "new", "web:/data/bound/new")
    assert refused.code == 1
    assert "read-only file system" in refused.stderr
    assert os.listdir(tmp_path / "bound") == ["b"]
    box("rm", "-f", "web")
    box("volume", "rm", "vol")


def test_cp_into_a_container_that_was_never_started(box: Tierce, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("first")
    box("create", "--name", "web", "--network", "none", "-v", "/data", "busybox", "cat", "/data/config")
    box("cp", tmp_path / "config", "web:/data/")
    assert box("start", "-a", "web").stdout == "first"


@BOTH
def test_cp_never_leaves_the_container(made: object, box: Tierce, tmp_path: Path) -> None:
    assert callable(made)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    made(box, f"ln -s {secret} /leak; ln -s {tmp_path} /out; ln -s ../../../../../..{secret} /up")
    for source in ("web:/leak", "web:/up", "web:/out/secret", f"web:../../../..{secret}"):
        done = box.attempt("cp", "-L", source, tmp_path / "stolen")
        assert done.code == 1, str(done)
        assert "could not find the file" in done.stderr
    (tmp_path / "bad").write_text("bad")
    assert box.attempt("cp", tmp_path / "bad", "web:/leak").code == 1
    assert box.attempt("cp", tmp_path / "bad", "web:/out/secret").code == 1
    assert secret.read_text() == "secret"
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("a", "b"), "must specify at least one container source or target"),
        (("web:/a", "web:/b"), "copying between containers is not supported"),
        (("absent:/a", "b"), "no such container: absent"),
        (("web:/absent", "b"), "could not find the file /absent in container web"),
        (("absent-file", "web:/"), "absent-file: no such file or directory"),
        (("", "web:/"), "source and target of a copy can't be empty"),
        (("-", "web:/etc/passwd"), "it is not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_cp_mistakes_are_one_line(argv: tuple[str, ...], error: str, box: Tierce) -> None:
    box("create", "--name", "web", "busybox")
    done = box.attempt("cp", *argv, stdin="")
    assert done.code == 1
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


def config_of(box: Tierce, image: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(box("inspect", image).stdout)[0]
    return found


@BOTH
def test_commit(made: object, box: Tierce) -> None:
    assert callable(made)
    made(box, CHANGES + "; echo v > /data/inside", "-v", "vol:/data", "-e", "A=1", "--label", "l=2", "-w", "/home")
    changes = ('CMD ["cat", "/new/file"]', "ENV B=$A-b", "STOPSIGNAL INT", "HEALTHCHECK CMD true", "EXPOSE 80")
    flags = [word for change in changes for word in ("-c", change)]
    image = box("commit", "-m", "why", "-a", "Jo <j@x.org>", *flags, "web", "mine:1").stdout.strip()
    document = config_of(box, "mine:1")
    config = document["Config"]
    assert isinstance(config, dict)
    assert document["Id"] == image
    assert config["Cmd"] == ["cat", "/new/file"]
    assert {"A=1", "B=1-b"} <= set(config["Env"])
    assert (config["WorkingDir"], config["Labels"]["l"], config["StopSignal"]) == ("/home", "2", "INT")
    assert list(config["ExposedPorts"]) == ["80/tcp"]
    assert box("run", "--rm", "--network", "none", "mine:1").stdout == "y\n"
    listing = box("run", "--rm", "--network", "none", "mine:1", "sh", "-c", "ls / /data /var; cat /etc/group").stdout
    assert "inside" not in listing
    assert "www" not in listing
    assert "x\n" in listing
    history = box("history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "mine:1").stdout.splitlines()
    assert history[0].startswith("why|sh -c echo x > /etc/group")
    assert box("ps", "--format", "{{.State}}").stdout == ("running\n" if made is running else "")
    assert "is whole" in box("system", "check").stdout
    box("rm", "-f", "web")
    box("volume", "rm", "vol")


def test_commit_without_changes_adds_no_layer(box: Tierce) -> None:
    stopped(box, "true")
    box("commit", "web", "same")
    layers = [config_of(box, name)["RootFS"] for name in ("busybox", "same")]
    assert layers[0] == layers[1]
    done = box.attempt("commit", "-c", "RUN true", "web", "bad")
    assert done.code == 1
    assert "RUN is not possible here" in done.stderr
    assert "bad" not in box("images").stdout


OPTIONS = (
    "--network=none", "-e", "A=1", "-u", "nobody", "-w", "/tmp", "--label", "l=2", "--expose", "80", "-v", "/d",
    "--stop-signal", "INT", "--health-cmd", "true", "--health-retries", "5", "--entrypoint", "echo",
)  # fmt: skip


@pytest.mark.peer
def test_commit_has_dockers_configuration(box: Tierce, docker: Docker) -> None:
    argv = ("create", "--name", "both", *OPTIONS, "busybox", "hi")
    changes = ("-c", "ENV B=2", "-c", "VOLUME /e", "-c", "ONBUILD RUN true", "-c", "WORKDIR in")
    found = []
    for call in (docker, lambda *words: box(*words).stdout):
        call(*argv)
        call("commit", *changes, "both", "both")
        config = json.loads(call("inspect", "--type", "image", "both"))[0]["Config"]
        found.append({key: config.get(key) or None for key in (
            "Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "OnBuild", "StopSignal", "User", "Volumes",
            "WorkingDir",
        )})  # fmt: skip
        found[-1]["Healthcheck"] = {key: value for key, value in config["Healthcheck"].items() if value}
    docker("rm", "-v", "both")
    docker("rmi", "both")
    assert found[0] == found[1]


def _tree(top: Path) -> None:
    """What is copied, and where to."""
    (top / "dir/sub").mkdir(parents=True)
    (top / "there").mkdir(mode=0o711)
    for name, text in (("file", "F"), ("dir/one", "1"), ("used", "old")):
        (top / name).write_text(text)
    os.chown(top / "dir/one", 7, 8)
    (top / "file").chmod(0o4751)
    for name, target in (("link", "file"), ("dirlink", "dir"), ("away", "no/where"), ("new", "there/made")):
        (top / name).symlink_to(target)


COPIES = (
    ("file", "there/"), ("file", "there/new/"), ("file", "used/"), ("file", "absent/new"), ("file/", "there"),
    ("file", "link"), ("file", "dirlink"), ("file", "new"), ("dir", "there"), ("dir/.", "there"), ("dir", "there/new/"),
    ("dir/.", "there/new"), ("dir", "used"), ("dirlink", "there"), ("dirlink/", "there"), ("dirlink/.", "there"),
    ("dir/../file", "there"), ("away", "there"), ("-L dirlink", "there"), ("-L away", "there"),
)  # fmt: skip


@pytest.mark.peer
def test_cp_puts_everything_where_docker_does(box: Tierce, docker: Docker, tmp_path: Path) -> None:
    """Each copy in a directory of its own, in and out of a container that has never run."""
    _tree(tmp_path / "tree")
    cases = tmp_path / "cases"
    for number in range(len(COPIES)):
        shutil.copytree(tmp_path / "tree", cases / str(number), symlinks=True)
        os.chown(cases / str(number) / "dir/one", 7, 8)
    outcomes = []
    for name, call in (("docker", docker.exit_code), ("tierce", lambda *words: box.attempt(*words).code)):
        here = tmp_path / name
        subprocess.run(["cp", "-a", cases, here], check=True)
        assert call("create", "--name", "copied", "--network=none", "busybox") == 0
        assert call("cp", cases, "copied:/cases") == 0
        codes = [_copied(call, copy, cases / str(number), here / str(number)) for number, copy in enumerate(COPIES)]
        exported = tmp_path / f"{name}.tar"
        assert call("export", "-o", exported, "copied") == 0
        assert call("rm", "copied") == 0
        outcomes.append({*codes, *_inside(exported), *_outside(here)})
    assert sorted(outcomes[0] ^ outcomes[1], key=str) == []


def _copied(call: Callable[..., int], copy: tuple[str, str], case: Path, here: Path) -> tuple[str, str, bool, bool]:
    """Whether it could be copied in, then out."""
    *flags, source = copy[0].split()
    inside = f"copied:/cases/{case.name}"
    into = call("cp", *flags, f"{case}/{source}", f"{inside}/{copy[1]}")
    return (*copy, into == 0, call("cp", *flags, f"{inside}/{source}", f"{here}/{copy[1]}") == 0)


def _inside(archive: Path) -> list[tuple[object, ...]]:
    with tarfile.open(archive) as tar:
        return sorted(
            (
                member.name.rstrip("/"),
                member.type,
                oct(member.mode & 0o7777),
                member.uid,
                member.gid,
                member.linkname,
                member.size,
            )
            for member in tar
            if member.name.startswith("cases/")
        )


def _outside(top: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found.append((str(path.relative_to(top)), oct(status.st_mode), status.st_uid, status.st_gid, content))
    return found


def test_a_stopped_container_is_not_removed_under_a_copy(box: Tierce, tmp_path: Path) -> None:
    stopped(box)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with box.start("export", "-o", fifo, "web") as writing:
        reader = os.open(fifo, os.O_RDONLY)
        with box.start("rm", "web") as removing:
            with pytest.raises(subprocess.TimeoutExpired):
                removing.wait(timeout=0.7)
            with open(reader, "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                assert "new/file" in tar.getnames()
            assert writing.wait(timeout=30) == 0
            assert removing.wait(timeout=30) == 0
    assert box("ps", "-aq").stdout == ""
