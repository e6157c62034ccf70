from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.config import ContainerConfig, Healthcheck, History, ImageConfig
from image.digest import DiffID
from image.errors import InvalidConfig
from image.platform import Platform

words = st.lists(st.text('ab/ é"\\', max_size=4), max_size=3).map(tuple)
names = st.lists(st.text("abc/", min_size=1, max_size=4), unique=True, max_size=3).map(
    lambda items: tuple(sorted(items))
)
labels = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text(max_size=3), max_size=3)
healthchecks = st.builds(Healthcheck, st.just(("CMD", "true")), *[st.integers(0, 10**12)] * 5)
containers = st.builds(
    ContainerConfig,
    st.sampled_from(["", "root", "1:2"]), names, words, st.none() | words, st.none() | words, names,
    st.sampled_from(["", "/"]), labels, st.sampled_from(["", "SIGINT"]), st.none() | healthchecks, words, words,
    st.booleans(),
)  # fmt: skip
configs = st.builds(
    ImageConfig,
    st.builds(Platform, st.just("linux"), st.sampled_from(["amd64", "arm"]), st.sampled_from(["", "v7"])),
    containers,
    st.lists(st.binary(max_size=2).map(DiffID.of), max_size=3).map(tuple),
    st.lists(st.builds(History, st.just("2024-01-01T00:00:00Z"), st.text(max_size=3)), max_size=2).map(tuple),
    st.sampled_from(["", "2024-01-01T00:00:00Z"]),
    st.sampled_from(["", "me"]),
)


@given(configs)
def test_round_trip(config: ImageConfig) -> None:
    assert ImageConfig.decode(config.encode()) == config


def test_unset_and_emptied_commands_differ() -> None:
    unset = json.loads(ImageConfig(Platform("linux", "amd64")).encode())["config"]
    emptied = json.loads(ImageConfig(Platform("linux", "amd64"), ContainerConfig(cmd=())).encode())["config"]
    assert "Cmd" not in unset
    assert emptied["Cmd"] == []


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "rootfs"),
        ({"rootfs": {"diff_ids": ["sha256:x"]}}, "rootfs.diff_ids[0]"),
        ({"rootfs": {}, "config": {"Env": "A=1"}}, "config.Env"),
        ({"rootfs": {}, "config": {"Labels": {"a": None}}}, "config.Labels.a"),
        ({"rootfs": {}, "history": [{"empty_layer": 1}]}, "history[0].empty_layer"),
    ],
)
def test_malformed_names_the_field(document: object, path: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        ImageConfig.decode(json.dumps(document).encode())
    assert caught.value.path == path


def test_null_members_are_absent() -> None:
    raw = b'{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Labels":null},"rootfs":{"diff_ids":null}}'
    assert ImageConfig.decode(raw).config == ContainerConfig()
