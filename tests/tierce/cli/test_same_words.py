"""The same image in docker and in Tierce: the same words about it, the same exit codes."""

from __future__ import annotations

import pytest

from tests.support.cli import Tierce
from tests.support.dockerd import Docker

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.mark.parametrize(
    "argv",
    [
        ("images", "busybox", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"),
        ("images", "busybox"),
        ("images", "-q", "--no-trunc", "busybox"),
        ("images", "--filter", "reference=busy*:l?test", "--format", "{{.ID}}"),
        ("images", "--filter", "reference=absent*"),
        ("images", "busybox", "--format", "table {{.ID}}\\t{{.Repository}}\\t{{.CreatedSince}}"),
        ("images", "busybox", "--format", "{{upper .Tag}}\\t{{len .ID}} {{.CreatedAt}}"),
        ("images", "busybox:absent", "--format", "json"),
        ("history", "--format", "{{.ID}}|{{.CreatedSince}}|{{.Size}}|{{.CreatedBy}}|{{.Comment}}", "busybox"),
        ("history", "--no-trunc", "busybox"),
        ("history", "-q", "busybox"),
        ("history", "--human=false", "--format", "{{.Size}}", "busybox"),
        ("image", "inspect", "-f", "{{.Id}} {{.Os}}/{{.Architecture}} {{.Size}}", "busybox"),
        ("image", "inspect", "-f", "{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.Env}}", "busybox"),
        ("image", "inspect", "-f", "{{json .Config.Cmd}} {{json .RootFS}} {{json .RepoTags}}", "busybox"),
        ("image", "inspect", "-f", "{{.Config.Labels}} {{.Config.Volumes}} {{.Config.WorkingDir}}", "busybox"),
        ("image", "inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}{{len .RootFS.Layers}}", "busybox"),
        ("image", "inspect", "-f", '{{index .RepoTags 0}} {{join .Config.Cmd ","}} {{.Created}}', "busybox"),
        ("image", "inspect", "-f", "{{with .Config.User}}{{.}}{{else}}none{{end}} {{.GraphDriver.Name}}", "busybox"),
        ("image", "inspect", "-f", '{{index .Config.Labels "absent"}}|{{.Config.Labels.absent}}', "busybox"),
    ],
    ids=" ".join,
)
def test_same_output(argv: tuple[str, ...], docker: Docker, tierce_with_busybox: Tierce) -> None:
    assert tierce_with_busybox(*argv).stdout == docker(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        ("images", "--no-such-flag"),
        ("images", "a", "b"),
        ("images", "--filter", "dangling=perhaps"),
        ("images", "--filter", "dangling"),
        ("images", "--filter", "nonsense=1"),
        ("images", "--format", "{{.Nope}}"),
        ("images", "--format", "{{"),
        ("rmi",),
        ("rmi", "absent"),
        ("rmi", "-f", "absent"),
        ("tag", "busybox"),
        ("tag", "absent", "x"),
        ("tag", "busybox", "UPPER"),
        ("image", "inspect", "absent"),
        ("image", "inspect", "-f", "{{.Nope}}", "busybox"),
        ("history", "absent"),
        ("save", "-o", "/nonexistent/file", "busybox"),
        ("load", "-i", "/nonexistent/file"),
        ("import", "/nonexistent/file"),
        ("pull", "UPPER"),
        ("push", "absent"),
        ("nonsense",),
        ("image", "nonsense"),
        ("image",),
        ("system", "df", "--no-such-flag"),
        ("system", "prune", "--filter", "nonsense=1", "-f"),
        ("run",),
        ("run", "--memory", "lots", "busybox"),
        ("login", "--password-stdin"),
    ],
    ids=" ".join,
)
def test_same_exit_code(argv: tuple[str, ...], docker: Docker, tierce_with_busybox: Tierce) -> None:
    ours = tierce_with_busybox.attempt(*argv, stdin="")
    assert ours.code == docker.exit_code(*argv), str(ours)
    assert "Traceback" not in ours.stderr
