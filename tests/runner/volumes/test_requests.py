"""What ``-v``, ``--mount`` and ``--tmpfs`` mean, and what they refuse, as docker does."""

from __future__ import annotations

import pytest

from image.errors import InvalidInput
from runner.volumes.long_form import parse_mount
from runner.volumes.request import MountRequest, inherit, merge, parse_tmpfs
from runner.volumes.short_form import parse_volume

_TMPFS = ("noexec", "nosuid", "nodev")


def bind(target: str, source: str, **more: object) -> MountRequest:
    return MountRequest("bind", target, source, **more)  # type: ignore[arg-type]


def volume(target: str, source: str = "", **more: object) -> MountRequest:
    return MountRequest("volume", target, source, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/data", volume("/data")),
        ("name:/data", volume("/data", "name")),
        ("name:/data:ro,nocopy", volume("/data", "name", read_only=True, no_copy=True, mode="ro,nocopy")),
        ("/a:/b", bind("/b", "/a", make_source=True)),
        ("./a:/b/:ro", bind("/b", "/work/a", make_source=True, read_only=True, mode="ro")),
        ("/a//c/:/b/../d", bind("/d", "/a/c", make_source=True)),
        (
            "/a:/b:rw,z,rslave,cached",
            bind("/b", "/a", make_source=True, propagation="rslave", mode="rw,z,rslave,cached"),
        ),
    ],
    ids=["anonymous", "named", "nocopy", "bind", "relative", "normalised", "labels and propagation"],
)
def test_short_form(text: str, wanted: MountRequest) -> None:
    assert parse_volume(text, cwd="/work") == wanted


@pytest.mark.parametrize(
    "text",
    ["", ":/x", "x:/a:ro:rw", "/a:ro", "/a:b", "/a:/", "/a:/..", "/a:/b:rx", "/a:/b:ro,rw", "/a:/b:z,Z", "/a:/b:nocopy",
     "n:/b", "name:/b:shared", "na/me:/b", ".:", "/a:/b:"],
)  # fmt: skip
def test_short_form_refused(text: str) -> None:
    if text == "/a:/b:":
        assert parse_volume(text, cwd="/").target == "/b"  # an empty mode is none, as in docker
        return
    with pytest.raises(InvalidInput):
        parse_volume(text, cwd="/")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dst=/t", volume("/t")),
        ("type=volume,src=data,target=/t,ro", volume("/t", "data", read_only=True)),
        ("source=data,target=/t,volume-nocopy,volume-subpath=a/b", volume("/t", "data", no_copy=True, subpath="a/b")),
        (
            'dst=/t,src=data,volume-driver=local,volume-opt=type=tmpfs,"volume-opt=o=size=1m,mode=700",volume-label=a=b',
            volume(
                "/t", "data", driver="local", labels=(("a", "b"),),
                driver_options=(("type", "tmpfs"), ("o", "size=1m,mode=700")),
            ),
        ),
        ("type=bind,src=/etc,dst=/e", bind("/e", "/etc")),
        ("type=BIND,source=./x,destination=/e,readonly=true", bind("/e", "/work/x", read_only=True)),
        ("type=bind,src=/x,dst=/e,bind-propagation=rshared", bind("/e", "/x", propagation="rshared")),
        ("type=bind,src=/x,dst=/e,bind-nonrecursive", bind("/e", "/x", below="disabled")),
        ("type=bind,src=/x,dst=/e,ro,bind-recursive=writable", bind("/e", "/x", read_only=True, below="writable")),
        ("type=tmpfs,dst=/t", MountRequest("tmpfs", "/t", tmpfs_options=_TMPFS)),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
            MountRequest("tmpfs", "/t", tmpfs_options=(*_TMPFS, "size=1048576", "mode=1770")),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_long_form(text: str, wanted: MountRequest) -> None:
    assert parse_mount(text, cwd="/work") == wanted


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "must be a key=value pair"),
        ("type=bind,src=/x", "target is required"),
        ("type=bind,dst=/x", "needs a source"),
        ("type=bind,src=x,dst=/x", "must be absolute"),
        ("dst=/x,colour=red", "unexpected key 'colour'"),
        ("dst=/x,source", "must be a key=value pair"),
        ("dst=/x,readonly=perhaps", "invalid value for readonly: perhaps"),
        ("type=npipe,dst=/x", "mount type 'npipe' is not supported"),
        ("type=bind,src=/x,dst=/e,volume-nocopy", "cannot mix 'volume-\\*' options with mount type 'bind'"),
        ("dst=/x,tmpfs-size=1m", "cannot mix 'tmpfs-\\*'"),
        ("type=tmpfs,src=/x,dst=/x", "a tmpfs has no source"),
        ("type=tmpfs,dst=/x,tmpfs-mode=9", "not octal"),
        ("type=tmpfs,dst=/x,tmpfs-size=much", "invalid value for tmpfs-size"),
        ("type=bind,src=/x,dst=/e,bind-propagation=up", "invalid propagation 'up'"),
        ("type=bind,src=/x,dst=/e,bind-recursive=readonly", "requires 'readonly'"),
        ("src=v1,dst=/e,volume-subpath=../x", "inside the volume"),
        ("dst=/e,volume-subpath=x", "a volume with a name"),
        ('dst=/x,"a', "unexpected end of data"),
        ("dst=/", "can't be '/'"),
    ],
)
def test_long_form_refused(text: str, error: str) -> None:
    with pytest.raises(InvalidInput, match=error):
        parse_mount(text, cwd="/work")


def test_tmpfs() -> None:
    assert parse_tmpfs("/run:size=1m,exec").tmpfs_options == (*_TMPFS, "size=1m", "exec")
    with pytest.raises(InvalidInput):
        parse_tmpfs("run")


def test_what_the_user_gives_hides_what_others_bring_and_parents_come_first() -> None:
    merged = merge(
        [bind("/a/b", "/x"), volume("/a")],
        inherited=[volume("/a/b", "theirs"), volume("/i", "theirs")],
        image=["/i", "/v/"],
    )
    assert [(request.target, request.source) for request in merged] == [
        ("/a", ""), ("/i", "theirs"), ("/v", ""), ("/a/b", "/x"),
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="duplicate mount point: /a"):
        merge([volume("/a"), bind("/a", "/x")])


def test_mounts_from_another_container() -> None:
    theirs = [volume("/v", "name"), MountRequest("tmpfs", "/t"), bind("/b", "/x", read_only=True)]
    assert [(request.target, request.read_only) for request in inherit(theirs, "")] == [("/v", False), ("/b", True)]
    assert all(request.read_only and request.no_copy for request in inherit(theirs, "ro"))
    with pytest.raises(InvalidInput, match="--volumes-from"):
        inherit(theirs, "rx")
