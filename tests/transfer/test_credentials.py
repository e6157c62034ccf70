"""Docker's and podman's credential files, and helpers that are real programs."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from image.errors import InvalidInput
from transfer.credential_helpers import CredentialHelpers
from transfer.credentials import CredentialFiles, Credentials, credential_files
from transfer.registries_conf.values import AUTH_FILES
from transfer.registry.challenge import Credential
from transfer.registry.wire import is_loopback


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def credentials(*files: Path, environ: Mapping[str, str] | None = None) -> Credentials:
    return Credentials(CredentialFiles(files, files[-1]), environ or {})


def config(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


HELPER = """#!/bin/sh
case "$1" in
get) read server; case "$server" in
  r.example) echo '{"ServerURL":"r.example","Username":"helped","Secret":"s3cret"}' ;;
  token.example) echo '{"Username":"<token>","Secret":"identity"}' ;;
  broken.example) echo 's3cret leaks here'; exit 3 ;;
  odd.example) echo '[]' ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;; esac ;;
store) cat > "$STORED" ;;
erase) cat > "$STORED.erased" ;;
esac
"""


@pytest.fixture
def helper_environ(tmp_path: Path) -> dict[str, str]:
    """An environment where ``docker-credential-test`` is a program."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STORED": str(tmp_path / "stored")}


class TestLookUp:
    @pytest.mark.parametrize(
        ("key", "domain", "path"),
        [
            pytest.param("r.example", "r.example", "a/b", id="host"),
            pytest.param("https://r.example", "r.example", "a", id="https"),
            pytest.param("https://r.example/v1/", "r.example", "a", id="v1-url"),
            pytest.param("http://r.example:5000", "r.example:5000", "a", id="http-port"),
            pytest.param("https://index.docker.io/v1/", "docker.io", "library/a", id="hub"),
            pytest.param("docker.io", "docker.io", "library/a", id="hub-podman"),
            pytest.param("r.example/team", "r.example", "team/app", id="namespace"),
        ],
    )
    def test_keys(self, tmp_path: Path, key: str, domain: str, path: str) -> None:
        file = config(tmp_path / "config.json", {"auths": {key: {"auth": encoded("bob", "a:b")}}})
        assert credentials(file).find(domain, path) == Credential("bob", "a:b")

    def test_longest_key_wins(self, tmp_path: Path) -> None:
        entries = {
            key: {"auth": encoded(key, "x")} for key in ("r.example", "r.example/a/b", "r.example/a", "r.example/ab")
        }
        found = credentials(config(tmp_path / "auth.json", {"auths": entries})).find("r.example", "a/b/c")
        assert found is not None
        assert found.username == "r.example/a/b"

    @pytest.mark.parametrize("key", ["r.example", "other.example/team", "r.example:5000"])
    def test_other_keys_do_not_match(self, tmp_path: Path, key: str) -> None:
        file = config(tmp_path / "auth.json", {"auths": {key: {"auth": encoded("bob", "x")}}})
        assert credentials(file).find("other.example", "app") is None

    def test_first_file_that_knows_decides(self, tmp_path: Path) -> None:
        first = config(tmp_path / "1", {"auths": {"a.example": {"auth": encoded("one", "x")}}})
        second = config(
            tmp_path / "2", {"auths": {h: {"auth": encoded("two", "x")} for h in ("a.example", "b.example")}}
        )
        found = [credentials(first, second).find(host) for host in ("a.example", "b.example")]
        assert [credential.username for credential in found if credential] == ["one", "two"]

    def test_identity_and_registry_tokens(self, tmp_path: Path) -> None:
        entries = {"a": {"identitytoken": "i", "auth": encoded("bob", "")}, "b": {"registrytoken": "r"}, "c": {}}
        found = credentials(config(tmp_path / "c", {"auths": entries}))
        assert found.find("a") == Credential("bob", "", identity_token="i")
        assert found.find("b") == Credential(registry_token="r")
        assert found.find("c") is None

    def test_docker_auth_config_variable(self, tmp_path: Path) -> None:
        environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {"r.example": {"auth": encoded("env", "x")}}})}
        found = credentials(tmp_path / "absent", environ=environ).find("r.example")
        assert found == Credential("env", "x")

    @pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"auths":{"r.example":{"auth":"%%%"}}}'])
    def test_broken_files_name_themselves_but_no_secret(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "config.json"
        file.write_text(content)
        with pytest.raises(InvalidInput, match="read credentials"):
            credentials(file).find("r.example")

    @pytest.mark.parametrize(
        "document", [{"auths": []}, {"auths": {"r.example": 5}}, {"credHelpers": "x"}, {"credsStore": 1}]
    )
    def test_members_of_other_types_are_passed_over(self, tmp_path: Path, document: object) -> None:
        assert credentials(config(tmp_path / "c", document)).find("r.example") is None

    def test_secrets_are_not_in_repr(self) -> None:
        assert "secret" not in repr(Credential("bob", "secret", "secret", "secret"))


class TestHelpers:
    def test_helper_of_a_host_comes_before_auths(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        document = {"credHelpers": {"r.example": "test"}, "auths": {"r.example": {"auth": encoded("file", "x")}}}
        file = config(tmp_path / "c", document)
        assert credentials(file, environ=helper_environ).find("r.example") == Credential("helped", "s3cret")

    def test_store_of_all_hosts(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        found = credentials(config(tmp_path / "c", {"credsStore": "test"}), environ=helper_environ)
        assert found.find("token.example") == Credential(identity_token="identity")
        assert found.find("absent.example") is None

    @pytest.mark.parametrize("host", ["broken.example", "odd.example"])
    def test_failing_helper_does_not_leak(self, tmp_path: Path, helper_environ: dict[str, str], host: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            credentials(config(tmp_path / "c", {"credsStore": "test"}), environ=helper_environ).find(host)
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["../evil", "a b", "absent-helper", "$(touch x)"])
    def test_bad_helpers(self, tmp_path: Path, helper_environ: dict[str, str], name: str) -> None:
        with pytest.raises(InvalidInput, match="credential helper"):
            credentials(config(tmp_path / "c", {"credsStore": name}), environ=helper_environ).find("r.example")

    def test_login_and_logout_go_through_the_helper(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        file = config(tmp_path / "c", {"credsStore": "test"})
        store = credentials(file, environ=helper_environ)
        store.login("r.example", Credential("bob", "hunter2"))
        assert json.loads((tmp_path / "stored").read_text()) == {
            "ServerURL": "r.example", "Username": "bob", "Secret": "hunter2",
        }  # fmt: skip
        assert "hunter2" not in file.read_text()
        assert store.logout("r.example")
        assert (tmp_path / "stored.erased").read_text() == "r.example"

    def test_what_the_store_does_not_know_the_file_may(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        document = {
            "credsStore": "test",
            "auths": {"r.example": {"auth": encoded("file", "x")}, "q.example/team": {"auth": encoded("team", "x")}},
        }
        found = credentials(config(tmp_path / "c", document), environ=helper_environ)
        assert found.find("r.example") == Credential("helped", "s3cret")
        assert found.find("q.example", "team/app") == Credential("team", "x")

    def test_an_empty_helper_means_the_file(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        document = {
            "credsStore": "test", "credHelpers": {"r.example": ""}, "auths": {"r.example": {"auth": encoded("file", "x")}},
        }  # fmt: skip
        file = config(tmp_path / "c", document)
        assert credentials(file, environ=helper_environ).find("r.example") == Credential("file", "x")

    def test_a_reply_is_kept(self, helper_environ: dict[str, str], tmp_path: Path) -> None:
        log = tmp_path / "log"
        program = tmp_path / "bin" / "docker-credential-counting"
        program.write_text(
            f'#!/bin/sh\necho "$1" >> {log}\n[ $1 != get ] || echo \'{{"Username":"u","Secret":"s"}}\'\n'
        )
        program.chmod(0o755)
        now = [0.0]
        helpers = CredentialHelpers(helper_environ, clock=lambda: now[0])
        for _ in range(3):
            assert helpers.get("counting", "r.example") == Credential("u", "s")
        assert log.read_text().split() == ["get"]
        helpers.store("counting", "r.example", Credential("v", "t"))
        helpers.get("counting", "r.example")
        now[0] = 301.0
        helpers.get("counting", "r.example")
        assert log.read_text().split() == ["get", "store", "get", "get"]

    def test_a_helper_that_hangs_is_killed(self, helper_environ: dict[str, str], tmp_path: Path) -> None:
        program = tmp_path / "bin" / "docker-credential-hanging"
        program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
        program.chmod(0o755)
        with pytest.raises(InvalidInput, match="docker-credential-hanging get: no answer in 1 s"):
            CredentialHelpers(helper_environ, timeout_s=1).get("hanging", "r.example")
        pid = (tmp_path / "pid").read_text().strip() if (tmp_path / "pid").exists() else ""
        assert not pid or not Path("/proc", pid).exists()  # a busy machine may not have started it in time

    def test_helpers_of_registries_conf(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        file = config(
            tmp_path / "c", {"auths": {h: {"auth": encoded("file", "x")} for h in ("r.example", "f.example")}}
        )
        files = CredentialFiles((file,), file)
        helped = Credentials(files, helper_environ, ("test", AUTH_FILES))
        assert helped.find("r.example") == Credential("helped", "s3cret")
        assert helped.find("f.example") == Credential("file", "x")
        filed = Credentials(files, helper_environ, (AUTH_FILES, "test"))
        assert filed.find("r.example") == Credential("file", "x")
        assert filed.find("token.example") == Credential(identity_token="identity")
        before = file.read_text()
        assert helped.login("r.example", Credential("bob", "hunter2")) == "credential helper test"
        assert json.loads((tmp_path / "stored").read_text())["Secret"] == "hunter2"
        assert file.read_text() == before


class TestLogin:
    def test_round_trip_keeps_what_is_not_ours(self, tmp_path: Path) -> None:
        file = config(tmp_path / "config.json", {"psFormat": "x", "auths": {"other": {"auth": "eA==", "email": "e"}}})
        store = credentials(file)
        store.login("r.example", Credential("bob", "hunter2"))
        assert store.find("r.example") == Credential("bob", "hunter2")
        document = json.loads(file.read_text())
        assert (document["psFormat"], document["auths"]["other"]) == ("x", {"auth": "eA==", "email": "e"})
        assert store.logout("r.example")
        assert not store.logout("r.example")
        assert list(json.loads(file.read_text())["auths"]) == ["other"]

    def test_hub_has_docker_s_key(self, tmp_path: Path) -> None:
        file = tmp_path / "new" / "config.json"
        credentials(file).login("docker.io", Credential("bob", "x"))
        assert list(json.loads(file.read_text())["auths"]) == ["https://index.docker.io/v1/"]

    def test_a_file_that_is_read_first_gets_the_new_password(self, tmp_path: Path) -> None:
        first = config(tmp_path / "auth.json", {"auths": {"r.example": {"auth": encoded("old", "x")}}})
        last = config(tmp_path / "config.json", {})
        store = Credentials(CredentialFiles((first, last), last), {})
        assert store.login("r.example", Credential("new", "y")) == str(first)
        assert store.login("s.example", Credential("new", "y")) == str(last)
        assert store.find("r.example") == Credential("new", "y")

    def test_logout_everywhere(self, tmp_path: Path, helper_environ: dict[str, str]) -> None:
        first = config(tmp_path / "1", {"auths": {"r.example/team": {"auth": encoded("a", "x")}}, "psFormat": "x"})
        second = config(
            tmp_path / "2", {"credsStore": "test", "auths": {"q.example": {}, "https://index.docker.io/v1/": {}}}
        )
        store = credentials(first, second, environ=helper_environ)
        assert store.logout_everywhere() == 3
        assert json.loads(first.read_text()) == {"auths": {}, "psFormat": "x"}
        assert json.loads(second.read_text()) == {"credsStore": "test", "auths": {}}
        assert (tmp_path / "stored.erased").exists()
        assert store.logout_everywhere() == 0

    def test_file_is_private_and_replaced_whole(self, tmp_path: Path) -> None:
        file = config(tmp_path / "config.json", {})
        file.chmod(0o644)
        credentials(file).login("r.example", Credential("bob", "x"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]

    def test_link_stays_a_link(self, tmp_path: Path) -> None:
        target = config(tmp_path / "real.json", {})
        link = tmp_path / "config.json"
        link.symlink_to(target)
        credentials(link).login("r.example", Credential("bob", "x"))
        assert link.is_symlink()
        assert "r.example" in target.read_text()

    def test_logins_at_once_lose_nothing(self, tmp_path: Path) -> None:
        file = tmp_path / "config.json"
        hosts = [f"r{number}.example" for number in range(12)]
        threads = [
            threading.Thread(target=credentials(file).login, args=(host, Credential("bob", host))) for host in hosts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(json.loads(file.read_text())["auths"]) == sorted(hosts)


@pytest.mark.parametrize(
    ("environ", "read", "write"),
    [
        pytest.param({}, ["/h/.config/containers/auth.json", "/h/.docker/config.json"], "/h/.docker/config.json", id="plain"),
        pytest.param({"REGISTRY_AUTH_FILE": "/a.json"}, ["/a.json"], "/a.json", id="registry-auth-file"),
        pytest.param(
            {"XDG_RUNTIME_DIR": "/run/u"},
            ["/run/u/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"],
            "/h/.docker/config.json",
            id="runtime-dir",
        ),
        pytest.param(
            {"DOCKER_CONFIG": "/d"}, ["/d/config.json", "/h/.config/containers/auth.json"], "/d/config.json", id="docker-config"
        ),
    ],
)  # fmt: skip
def test_places(environ: dict[str, str], read: list[str], write: str) -> None:
    files = credential_files({"HOME": "/h", **environ}, run="/nowhere")
    assert ([str(path) for path in files.read], str(files.write)) == (read, write)


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("127.0.0.9", True), ("::1", True), ("0.0.0.0", True), ("127.0.0.1.example", False), ("example", False)])  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_podman_s_place_without_a_session(tmp_path: Path) -> None:
    own = tmp_path / str(os.getuid()) / "auth.json"
    own.parent.mkdir()
    own.write_text("{}")
    assert credential_files({"HOME": "/h"}, run=str(tmp_path)).read[0] == own
    with_session = credential_files({"HOME": "/h", "XDG_RUNTIME_DIR": "/x"}, run=str(tmp_path))
    assert own not in with_session.read
