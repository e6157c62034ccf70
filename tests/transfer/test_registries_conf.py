"""registries.conf: which files count, what they mean together, and what is said of broken ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from image.errors import InvalidInput, InvalidReference, PolicyRejected
from image.reference import Reference
from transfer.registries_conf.decode import decode
from transfer.registries_conf.files import ConfFiles, conf_files, load
from transfer.registries_conf.values import RegistriesConf

DIGEST = f"sha256:{'a' * 64}"


def conf(text: str) -> RegistriesConf:
    says = decode(text, "r.conf")
    return RegistriesConf(
        says.rules, says.search or (), "r.conf", says.short_name_mode or "permissive", says.aliases
    )  # fmt: skip


def places(text: str, name: str) -> list[str]:
    return [
        f"{place.reference}{'!' if place.insecure else ''}"
        for place in conf(text).pull_places(Reference.parse(name))
    ]  # fmt: skip


MIRRORED = """
[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
[[registry.mirror]]
location = "mirror-0.example/for-foo"
[[registry.mirror]]
location = "mirror-1.example:5000"
insecure = true
"""


class TestPlaces:
    def test_mirrors_in_order_and_the_registry_last(self) -> None:
        assert places(MIRRORED, "example.com/foo/app:1") == [
            "mirror-0.example/for-foo/app:1",
            "mirror-1.example:5000/app:1!",
            "internal.example/bar/app:1",
        ]

    @pytest.mark.parametrize("name", ["example.com/other:1", "example.com/foobar:1", "example.com:5000/foo/app:1"])
    def test_other_names_go_where_they_say(self, name: str) -> None:
        assert places(MIRRORED, name) == [name]

    @pytest.mark.parametrize(
        ("prefix", "name", "expected"),
        [
            pytest.param("r.example", "r.example/a/b:1", "to.example/x/a/b:1", id="host"),
            pytest.param("r.example", "r.example:5000/a:1", "r.example:5000/a:1", id="a-port-is-another-host"),
            pytest.param("r.example:5000", "r.example:5000/a:1", "to.example/x/a:1", id="port"),
            pytest.param("r.example/a/b", "r.example/a/b:1", "to.example/x:1", id="repository"),
            pytest.param("r.example/a/b", f"r.example/a/b@{DIGEST}", f"to.example/x@{DIGEST}", id="repository-digest"),
            pytest.param("r.example/a:1", "r.example/a:1", "to.example/x:1", id="tag"),
            pytest.param("docker.io", "alpine:3", "to.example/x/library/alpine:3", id="hub"),
            pytest.param("docker.io/library", "alpine:3", "to.example/x/alpine:3", id="hub-library"),
            pytest.param("*.example", "deep.r.example/a:1", "to.example/x/a:1", id="wildcard"),
            pytest.param("*.example", "example/a:1", "docker.io/example/a:1", id="wildcard-is-no-bare-host"),
        ],
    )  # fmt: skip
    def test_prefixes(self, prefix: str, name: str, expected: str) -> None:
        text = f'[[registry]]\nprefix = "{prefix}"\nlocation = "to.example/x"\n'
        assert places(text, name) == [expected]

    def test_a_location_that_makes_no_name_says_so(self) -> None:
        text = '[[registry]]\nprefix = "*.example"\nlocation = "to.example/x"\n'
        with pytest.raises(InvalidReference, match=r"location 'to.example/x' in r.conf: invalid repository name"):
            places(text, "deep.example:5000/a:1")

    def test_longest_prefix_wins(self) -> None:
        text = "".join(
            f'[[registry]]\nprefix = "{prefix}"\nlocation = "{where}.example"\n'
            for prefix, where in (("*.r.example", "any"), ("a.r.example/x/y", "long"), ("a.r.example/x", "middle"))
        )
        assert places(text, "a.r.example/x/y/z:1") == ["long.example/z:1"]
        assert places(text, "a.r.example/x/z:1") == ["middle.example/z:1"]
        assert places(text, "a.r.example/z:1") == ["any.example/z:1"]

    def test_wildcard_without_location_keeps_the_name(self) -> None:
        text = '[[registry]]\nprefix = "*.example"\ninsecure = true\n[[registry.mirror]]\nlocation = "m.example/all"\n'
        assert places(text, "a.example/x:1") == ["m.example/all/x:1", "a.example/x:1!"]

    @pytest.mark.parametrize(
        ("rule", "mirror", "by_tag", "by_digest"),
        [
            pytest.param("", "", 2, 2, id="all"),
            pytest.param("mirror-by-digest-only = true", "", 1, 2, id="by-digest-only"),
            pytest.param("", 'pull-from-mirror = "digest-only"', 1, 2, id="digest-only"),
            pytest.param("", 'pull-from-mirror = "tag-only"', 2, 1, id="tag-only"),
        ],
    )
    def test_what_a_mirror_is_asked_for(self, rule: str, mirror: str, by_tag: int, by_digest: int) -> None:
        text = f'[[registry]]\nlocation = "r.example"\n{rule}\n[[registry.mirror]]\nlocation = "m.example"\n{mirror}\n'
        assert len(places(text, "r.example/a:1")) == by_tag
        assert len(places(text, f"r.example/a@{DIGEST}")) == by_digest

    def test_blocked_names_say_by_which_file(self) -> None:
        blocking = conf('[[registry]]\nlocation = "bad.example"\nblocked = true\n')
        reference = Reference.parse("bad.example/app:1")
        with pytest.raises(PolicyRejected, match=r"^pull bad.example/app:1: bad.example is blocked by r.conf$"):
            blocking.pull_places(reference)
        with pytest.raises(PolicyRejected, match=r"^push "):
            blocking.push_place(reference)

    def test_a_blocked_registry_leaves_its_mirrors(self) -> None:
        blocking = conf(MIRRORED.replace("[[registry.mirror]]", "blocked = true\n[[registry.mirror]]", 1) + (
            '[[registry]]\nlocation = "mirror-0.example"\nblocked = true\n'
        ))  # fmt: skip
        reference = Reference.parse("example.com/foo/app:1")
        assert [str(place.reference) for place in blocking.pull_places(reference)] == ["mirror-1.example:5000/app:1"]
        with pytest.raises(PolicyRejected, match=r"example.com/foo is blocked by"):
            blocking.own_place(reference)

    def test_a_push_goes_where_the_name_says(self) -> None:
        place = conf(MIRRORED).push_place(Reference.parse("example.com/foo/app:1"))
        assert str(place.reference) == "example.com/foo/app:1"

    @pytest.mark.parametrize("prefix", ["example.com/foo", "*.com"])
    def test_a_check_of_a_push_is_not_redirected(self, prefix: str) -> None:
        text = MIRRORED.replace("example.com/foo", prefix)
        [place] = conf(text).without_redirection().pull_places(Reference.parse("example.com/foo/app:1"))
        assert str(place.reference) == "example.com/foo/app:1"


class TestShortNames:
    @pytest.mark.parametrize(
        ("text", "name", "expected"),
        [
            pytest.param("", "app:1", ["docker.io/library/app:1"], id="docker-s-default"),
            pytest.param("", "r.example/app", ["r.example/app"], id="full"),
            pytest.param('[aliases]\n"app" = "r.example/team/app"', "app:1", ["r.example/team/app:1"], id="alias"),
            pytest.param('[aliases]\n"app" = "r.example/team/app"', f"app@{DIGEST}", [f"r.example/team/app@{DIGEST}"], id="alias-digest"),
            pytest.param('[aliases]\n"app" = "r.example/app"', "docker.io/app", ["docker.io/library/app"], id="a-full-name-has-no-alias"),
            pytest.param('[aliases]\n"team/app" = "docker.io/app"', "team/app", ["docker.io/library/app"], id="alias-to-hub"),
            pytest.param('unqualified-search-registries = ["r.example", "docker.io"]', "app:1", ["r.example/app:1", "docker.io/library/app:1"], id="search"),
            pytest.param('short-name-mode = "disabled"\nunqualified-search-registries = ["r.example:5000", "q.example"]', "a/b", ["r.example:5000/a/b", "q.example/a/b"], id="disabled"),
            pytest.param('short-name-mode = "enforcing"\nunqualified-search-registries = ["r.example"]', "app", ["r.example/app"], id="enforcing-one"),
        ],
    )  # fmt: skip
    def test_meanings(self, text: str, name: str, expected: list[str]) -> None:
        assert [str(meant) for meant in conf(text).meanings(Reference.parse(name))] == expected

    def test_enforcing_names_the_choice(self) -> None:
        text = 'short-name-mode = "enforcing"\nunqualified-search-registries = ["r.example", "docker.io"]'
        with pytest.raises(
            InvalidReference, match=r"ambiguous: write r.example/app:1 or docker.io/library/app:1 .*r.conf"
        ):
            conf(text).meanings(Reference.parse("app:1"))

    def test_a_tag_or_digest_keeps_a_short_name_short(self) -> None:
        short = Reference.parse("app")
        assert (short.short, short.with_default_tag().short, Reference.parse("r.example/app").short) == (
            True,
            True,
            False,
        )
        assert short == Reference.parse("docker.io/library/app")


class TestFiles:
    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def test_drop_ins_override_by_prefix_and_name(self, tmp_path: Path) -> None:
        main = self.write(tmp_path / "registries.conf", (
            'unqualified-search-registries = ["a.example"]\ncredential-helpers = ["pass"]\n'
            '[aliases]\n"one" = "a.example/one"\n"two" = "a.example/two"\n'
            '[[registry]]\nlocation = "r.example"\nblocked = true\n[[registry]]\nlocation = "s.example"\n'
        ))  # fmt: skip
        self.write(tmp_path / "d" / "20.conf", 'unqualified-search-registries = ["c.example"]\n')
        self.write(tmp_path / "d" / "10.conf", (
            'unqualified-search-registries = ["b.example"]\nshort-name-mode = "disabled"\n'
            '[aliases]\n"one" = ""\n"two" = "b.example/two"\n[[registry]]\nlocation = "r.example"\n'
        ))  # fmt: skip
        self.write(tmp_path / "d" / "30.conf.bak", "not TOML")
        cached = self.write(tmp_path / "aliases", '[aliases]\n"three" = "z.example/three"\n')
        found = load(ConfFiles(main, drop_ins=(tmp_path / "d", tmp_path / "absent"), aliases=(tmp_path / "no", cached)))
        assert (found.search, found.search_file) == (("c.example",), str(tmp_path / "d" / "20.conf"))
        assert found.aliases == {"two": "b.example/two", "three": "z.example/three"}
        assert {rule.prefix: rule.blocked for rule in found.rules} == {"r.example": False, "s.example": False}
        assert (found.short_name_mode, found.credential_helpers) == ("disabled", ("pass",))

    @pytest.mark.parametrize("variable", ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"])
    def test_a_chosen_file_must_exist(self, tmp_path: Path, variable: str) -> None:
        files = conf_files({"HOME": str(tmp_path), variable: str(tmp_path / "mine.conf")}, tmp_path / "etc")
        with pytest.raises(InvalidInput, match=r"read .*/mine.conf: no such file"):
            load(files)
        self.write(tmp_path / "mine.conf", "")
        assert load(files) == RegistriesConf()

    def test_the_user_s_file_stands_in_for_the_system_s(self, tmp_path: Path) -> None:
        self.write(tmp_path / "etc/registries.conf", 'unqualified-search-registries = ["system.example"]')
        self.write(tmp_path / "etc/registries.conf.d/1.conf", '[aliases]\n"a" = "system.example/a"')
        self.write(tmp_path / ".config/containers/registries.conf.d/2.conf", '[aliases]\n"b" = "user.example/b"')
        environ = {"HOME": str(tmp_path)}
        system = load(conf_files(environ, tmp_path / "etc"))
        assert (system.search, sorted(system.aliases)) == (("system.example",), ["a", "b"])
        self.write(tmp_path / ".config/containers/registries.conf", 'unqualified-search-registries = ["user.example"]')
        user = load(conf_files(environ, tmp_path / "etc"))
        assert (user.search, sorted(user.aliases)) == (("user.example",), ["b"])

    def test_a_machine_without_files_has_the_default(self, tmp_path: Path) -> None:
        assert load(conf_files({"HOME": str(tmp_path)}, tmp_path / "etc")) == RegistriesConf()

    def test_version_1(self, tmp_path: Path) -> None:
        text = (
            "[registries.search]\nregistries = ['a.example', 'docker.io']\n"
            "[registries.insecure]\nregistries = ['i.example']\n[registries.block]\nregistries = ['b.example']\n"
        )
        found = load(ConfFiles(self.write(tmp_path / "r.conf", text)))
        assert found.search == ("a.example", "docker.io")
        assert found.pull_places(Reference.parse("i.example/x"))[0].insecure
        with pytest.raises(PolicyRejected):
            found.pull_places(Reference.parse("b.example/x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('a = 1\n[[registry]\n', "r.conf:2: not valid TOML", id="toml"),
        pytest.param('a = 1\nb = "', "r.conf:2: not valid TOML", id="toml-end"),
        pytest.param("\n[[registry]]\n", "r.conf:2: registry[0]: location and prefix are missing", id="no-location"),
        pytest.param('\n[[registry]]\nprefix = "r.example/x"\n', "r.conf:2: registry[0]: location is missing", id="only-prefix"),
        pytest.param('[[registry]]\nlocation = "a.example"\n[[registry]]\nlocation = "b.example"\nblocked = "yes"\n', "r.conf:5: registry[1].blocked: want true or false", id="flag"),
        pytest.param('[[registry]]\nlocation = "https://r.example"\n', "r.conf:2: registry[0].location: 'https://r.example' is a URL: leave https:// out", id="url"),
        pytest.param('[[registry]]\nlocation = "-x"\n', "r.conf:2: registry[0].location: '-x' does not start with a host", id="no-host"),
        pytest.param('[[registry]]\nprefix = "*.example/x"\n', "r.conf:2: registry[0].prefix: after '*.' comes a host", id="wildcard-path"),
        pytest.param('[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\ninsecure = true\n', "r.conf:3: registry[0].mirror[0]: location is missing", id="mirror"),
        pytest.param('[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\npull-from-mirror = "never"\n', "r.conf:5: registry[0].mirror[0].pull-from-mirror: want one of", id="use"),
        pytest.param('[[registry]]\nlocation = "r.example"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.example"\npull-from-mirror = "all"\n', "r.conf:6: registry[0].mirror[0].pull-from-mirror: can't be set beside", id="both-uses"),
        pytest.param('[[registry]]\nlocation = "r.example"\npull-from-mirror = "all"\n', "r.conf:3: registry[0].pull-from-mirror: belongs to", id="use-of-no-mirror"),
        pytest.param('[[registry]]\nlocation = "r.example"\n[[registry]]\nprefix = "p.example"\nlocation = "r.example"\ninsecure = true\n', "r.conf:6: registry[1].insecure: r.example has two values", id="conflict"),
        pytest.param('\nunqualified-search-registries = ["r.example/x"]\n', "r.conf:2: unqualified-search-registries: 'r.example/x' is no host[:port]", id="search"),
        pytest.param('short-name-mode = "sometimes"\n', "r.conf:1: short-name-mode: want one of enforcing, permissive, disabled", id="mode"),
        pytest.param('[aliases]\n"r.example/a" = "r.example/b"\n', "r.conf:2: aliases.r.example/a: 'r.example/a' is no short name", id="alias-name"),
        pytest.param('[aliases]\na = "b"\n', "r.conf:2: aliases.a: 'b' must have a host", id="alias-value"),
        pytest.param('[aliases]\na = "r.example/b:1"\n', "r.conf:2: aliases.a: 'r.example/b:1' must have a host, and no tag", id="alias-tag"),
        pytest.param('[registries.search]\nregistries = ["a.example"]\n[[registry]]\nlocation = "r.example"\n', "version 1 of the format can't be used here", id="two-versions"),
        pytest.param("registry = 5\n", "r.conf:1: registry: want tables", id="no-tables"),
        pytest.param("registry = [5]\n", "r.conf:1: registry[0]: want a table", id="no-table"),
        pytest.param("a = " + "[" * 5000 + "\n", "r.conf", id="deep"),
    ],
)  # fmt: skip
def test_malformed_files_are_one_line_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(text, "r.conf")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"), [(b"a = 1\n\xff", "r.conf:2: not UTF-8"), (b"#" * (2 << 20), "larger than")]
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "r.conf").write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        load(ConfFiles(tmp_path / "r.conf"))


def test_unknown_keys_are_for_other_programs() -> None:
    text = 'future = 1\n[[registry]]\nlocation = "r.example"\nproxy = "http://p.example"\n'
    assert decode(text, "r.conf").rules[0].location == "r.example"


@pytest.mark.parametrize("environ", [{"HOME": "/h"}, {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}])
def test_where_files_are(environ: Mapping[str, str]) -> None:
    files = conf_files(environ, Path("/nowhere"))
    own = environ.get("XDG_CONFIG_HOME", "/h/.config")
    assert files.main == Path("/nowhere/registries.conf")
    assert files.drop_ins == (Path("/nowhere/registries.conf.d"), Path(own, "containers/registries.conf.d"))
