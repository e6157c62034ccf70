"""``images``, ``rmi``, ``tag``, ``inspect``, ``history`` on a real store."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from image.config import ContainerConfig
from store.store import Store
from tests.tierce.conftest import Stock

Invoke = Callable[..., tuple[int, str, str]]


def _names(stock: Stock) -> set[str]:
    with Store.open(stock.root) as store:
        return {record.name for record in store.metadata.names()}


def _listed(invoke: Invoke, *arguments: str) -> list[str]:
    code, out, err = invoke("images", "--format", "{{.Repository}}:{{.Tag}}", *arguments)
    assert code == 0, err
    return out.splitlines()


@pytest.fixture
def stocked(stock: Stock) -> Stock:
    stock.add("busybox", "registry.example.com/team/app:1", created="2026-01-01T00:00:00Z", content="1")
    stock.add("docker.io/team/app:2", created="2026-02-01T00:00:00Z", content="2", labels={"tier": "web", "x": "y"})
    stock.add(created="2026-03-01T00:00:00Z", content="3")
    return stock


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["<none>:<none>", "team/app:2", "busybox:latest", "registry.example.com/team/app:1"]),
        (("busybox",), ["busybox:latest"]),
        (("busybox:1",), []),
        (("b*",), ["busybox:latest"]),
        (("*/app",), ["team/app:2"]),
        (("*/*/app",), ["registry.example.com/team/app:1"]),
        (("team/app:2",), ["team/app:2"]),
        (("team/app:[13-9]",), []),
        (("--filter", "reference=team/*:?"), ["team/app:2"]),
        (("--filter", "dangling=true"), ["<none>:<none>"]),
        (("-f", "dangling=false", "team/app"), ["team/app:2"]),
        (("--filter", "label=tier"), ["team/app:2"]),
        (("--filter", "label=tier=web", "--filter", "label=x=y"), ["team/app:2"]),
        (("--filter", "label=tier=db"), []),
        (("--filter", "before=team/app:2"), ["busybox:latest", "registry.example.com/team/app:1"]),
        (("--filter", "since=team/app:2"), ["<none>:<none>"]),
        (
            ("--filter", "until=2026-02-01T00:00:01Z"),
            ["team/app:2", "busybox:latest", "registry.example.com/team/app:1"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_filters(arguments: tuple[str, ...], names: list[str], stocked: Stock, invoke: Invoke) -> None:
    assert _listed(invoke, *arguments) == names


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("dangling=perhaps", "neither true nor false"),
        ("dangling", "not KEY=VALUE"),
        ("before=absent", "no such image: absent"),
    ],
)
def test_filters_refused(word: str, error: str, stocked: Stock, invoke: Invoke) -> None:
    code, _, err = invoke("images", "--filter", word)
    assert code != 0
    assert error in err


def test_quiet_shows_each_id_once(stocked: Stock, invoke: Invoke) -> None:
    _, short, _ = invoke("images", "-q")
    _, whole, _ = invoke("images", "-q", "--no-trunc")
    assert len(short.splitlines()) == 3
    assert [line.removeprefix("sha256:")[:12] for line in whole.splitlines()] == short.splitlines()


def test_digests(stock: Stock, invoke: Invoke) -> None:
    target = stock.add("app", source=f"sha256:{'9' * 64}")
    _, out, _ = invoke("images", "--digests")
    assert out.splitlines()[0].split() == ["REPOSITORY", "TAG", "DIGEST", "IMAGE", "ID", "CREATED", "SIZE"]
    assert f"sha256:{'9' * 64}" in out
    assert str(target.digest) not in out


def test_a_name_goes_before_the_image(stocked: Stock, invoke: Invoke) -> None:
    assert invoke("rmi", "busybox") == (0, "Untagged: busybox:latest\n", "")
    code, out, _ = invoke("rmi", "registry.example.com/team/app:1")
    assert code == 0
    assert out.startswith("Untagged: registry.example.com/team/app:1\nDeleted: sha256:")
    assert _names(stocked) == {"docker.io/team/app:2"}


def test_removing_frees_the_space(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    invoke("rmi", "app")
    assert list((stock.root / "blobs" / "sha256").iterdir()) == []


def test_shared_blobs_stay(stock: Stock, invoke: Invoke) -> None:
    stock.add("one", content="same")
    stock.add("two", content="same", created="2026-05-05T00:00:00Z")
    invoke("rmi", "one")
    code, out, _ = invoke("system", "check", "-q")
    assert (code, out) == (0, "")


def test_an_id_with_names_in_several_repositories_needs_force(stocked: Stock, invoke: Invoke) -> None:
    _, out, _ = invoke("images", "-q", "busybox")
    image = out.strip()
    code, _, err = invoke("rmi", image)
    assert code == 1
    assert "names in several repositories" in err
    code, out, _ = invoke("rmi", "-f", image)
    assert code == 0
    assert out.startswith("Untagged: busybox:latest\nUntagged: registry.example.com/team/app:1\nDeleted: sha256:")


def test_the_rest_is_removed_when_one_is_absent(stocked: Stock, invoke: Invoke) -> None:
    code, out, err = invoke("rmi", "absent", "busybox")
    assert (code, out, err) == (1, "Untagged: busybox:latest\n", "tierce: no such image: absent\n")


def test_force_forgives_what_is_absent(stock: Stock, invoke: Invoke) -> None:
    assert invoke("rmi", "-f", "absent")[0] == 0


def test_words_that_mean_an_image(stock: Stock, invoke: Invoke) -> None:
    target = stock.add("app:1")
    with Store.open(stock.root) as store:
        config = store.metadata.images()[0].config
    for word in (
        "app:1",
        "docker.io/library/app:1",
        config,
        config[7:19],
        config[7:10],
        str(target.digest),
        f"app@{target.digest}",
    ):
        code, out, err = invoke("inspect", "--format", "{{.Id}}", word)
        assert (code, out) == (0, f"{config}\n"), (word, err)


@pytest.mark.parametrize(
    "word", ["app", "app:2", "other:1", "sha256:zz", "0" * 12, f"other@sha256:{'0' * 64}", "UPPER", ""]
)
def test_words_that_mean_none(word: str, stock: Stock, invoke: Invoke) -> None:
    stock.add("app:1")
    code, out, err = invoke("inspect", "--format", "{{.Id}}", word)
    assert (code, out) == (1, "")
    assert err == f"tierce: no such image: {word}\n"


def test_an_ambiguous_id_is_refused(stock: Stock, invoke: Invoke) -> None:
    for number in range(20):
        stock.add(content=str(number))
    with Store.open(stock.root) as store:
        firsts = [record.config[7] for record in store.metadata.images()]
    letter = next(first for first in firsts if firsts.count(first) > 1)
    code, _, err = invoke("inspect", letter)
    assert code == 1
    assert f"image id {letter} is ambiguous" in err


def test_a_name_wins_over_an_id(stock: Stock, invoke: Invoke) -> None:
    stock.add("other", content="other")
    with Store.open(stock.root) as store:
        prefix = store.metadata.images()[0].config[7:19]
    stock.add(prefix, content="named like an id")
    _, out, _ = invoke("inspect", "--format", "{{json .RepoTags}}", prefix)
    assert out == f'["{prefix}:latest"]\n'


def test_tag_moves_a_name(stock: Stock, invoke: Invoke) -> None:
    stock.add("one", content="1")
    stock.add("two", content="2")
    assert invoke("tag", "one", "two")[0] == 0
    _, one, _ = invoke("images", "-q", "one")
    _, two, _ = invoke("images", "-q", "two")
    assert one == two
    assert len(_listed(invoke, "--filter", "dangling=true")) == 1


def test_tag_refuses_a_digest(stock: Stock, invoke: Invoke) -> None:
    stock.add("one")
    code, _, err = invoke("tag", "one", f"x@sha256:{'0' * 64}")
    assert code == 1
    assert "a tag can't be given together with a digest" in err


def test_inspect_has_dockers_members(stock: Stock, invoke: Invoke) -> None:
    config = ContainerConfig(
        user="me", exposed_ports=("80/tcp",), env=("A=1",), entrypoint=("/run",), cmd=(), volumes=("/data",),
        working_dir="/w", labels={"k": "v"}, stop_signal="SIGINT",
    )  # fmt: skip
    target = stock.add("app:1", "app:2", config=config)
    _, out, _ = invoke("inspect", "app:1")
    [document] = json.loads(out)
    assert document["RepoTags"] == ["app:1", "app:2"]
    assert document["RepoDigests"] == [f"app@{target.digest}"]
    assert document["Config"] == {
        "User": "me", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1"], "Cmd": [], "Entrypoint": ["/run"],
        "Volumes": {"/data": {}}, "WorkingDir": "/w", "OnBuild": None, "Labels": {"k": "v"}, "StopSignal": "SIGINT",
        "Shell": None, "Healthcheck": None,
    }  # fmt: skip
    assert document["RootFS"]["Type"] == "layers"
    assert (document["Os"], document["Architecture"]) == ("linux", "amd64")
    assert document["Descriptor"]["digest"] == str(target.digest)


def test_inspect_of_several_tells_of_those_absent(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    code, out, err = invoke("inspect", "app", "absent")
    assert code == 1
    assert len(json.loads(out)) == 1
    assert err == "tierce: no such image: absent\n"


def test_inspect_json_is_one_line(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    _, out, _ = invoke("inspect", "-f", "json", "app")
    assert out.count("\n") == 1
    assert json.loads(out)[0]["RepoTags"] == ["app:latest"]


def test_platforms_of_an_index(stock: Stock, invoke: Invoke) -> None:
    amd = stock.add(content="amd")
    arm = stock.add(content="arm", platform="linux/arm64")
    stock.add_index("both", [(amd, "linux/amd64"), (arm, "linux/arm64")])
    for platform, architecture in [("linux/amd64", "amd64"), ("arm64", "arm64")]:
        _, out, _ = invoke("inspect", "--platform", platform, "-f", "{{.Architecture}}", "both")
        assert out == f"{architecture}\n"
    code, _, err = invoke("inspect", "--platform", "linux/s390x", "both")
    assert code == 1
    assert "has no platform linux/s390x in the store (there is: linux/amd64, linux/arm64)" in err


def test_history(stock: Stock, invoke: Invoke) -> None:
    stock.add("app")
    _, out, _ = invoke("history", "--format", "{{.CreatedBy}}|{{.Comment}}|{{.ID}}", "app")
    first, second = out.splitlines()
    assert first.startswith('CMD ["/bin/sh"]|buildkit.dockerfile.v0|')
    assert second == "COPY greeting / # buildkit|buildkit.dockerfile.v0|<missing>"
    _, out, _ = invoke("history", "--human=false", "--format", "{{.CreatedSince}} {{.Size}}", "app")
    assert out.splitlines()[0] == "2026-01-02T03:04:05Z 0"
    _, out, _ = invoke("history", "-q", "app")
    assert out.splitlines()[1] == "<missing>"


def test_size_is_that_of_the_files_once_unpacked(stock: Stock, invoke: Invoke) -> None:
    from store.unpacking import ensure_unpacked

    target = stock.add("app", content="x" * 5000)
    assert _size(invoke) != "5kB"
    with Store.open(stock.root) as store, store.session() as session:
        ensure_unpacked(session, store.facts(target))
    assert _size(invoke) == "5kB"


def _size(invoke: Invoke) -> str:
    return invoke("images", "--format", "{{.Size}}")[1].strip()
