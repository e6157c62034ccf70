"""Tables as docker sets them, with a fixed clock."""

from __future__ import annotations

import json

import pytest

from image.descriptor import Descriptor
from image.digest import Digest
from image.errors import InvalidTemplate
from store.metadata import ImageRecord
from tierce.cli.images import HEADERS, image_rows
from tierce.cli.inspect import HEADERS as HISTORY_HEADERS
from tierce.cli.inspect import history_rows
from tierce.cli.tables import align, render
from tierce.describe import Step

NOW_S = 1_770_000_000.0  # 2026-02-02T02:40:00Z
COLUMNS = ["Repository", "Tag", "ID", "CreatedSince", "Size"]


def _record(letter: str, *names: str, created: str, size: int) -> ImageRecord:
    digest = Digest(f"sha256:{letter * 64}")
    target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest, 400)
    return ImageRecord(target, names, str(digest), "linux/amd64", created, 0.0, size)


RECORDS = [
    _record("a", "docker.io/library/busybox:latest", created="2026-02-02T02:37:00Z", size=7_810_000),
    _record(
        "b",
        "docker.io/team/app:1.0",
        "registry.example.com:5000/team/app:1.0",
        created="2026-02-02T01:30:00.123456789Z",
        size=1_234,
    ),
    _record("c", created="", size=0),
]


def _rows() -> list[dict[str, str]]:
    return image_rows(RECORDS, {}, lambda _: True, NOW_S)


def test_images_table() -> None:
    assert render(_rows(), HEADERS, COLUMNS, "").splitlines() == [
        "REPOSITORY                           TAG       IMAGE ID       CREATED             SIZE",
        "busybox                              latest    aaaaaaaaaaaa   3 minutes ago       7.81MB",
        "team/app                             1.0       bbbbbbbbbbbb   About an hour ago   1.23kB",
        "registry.example.com:5000/team/app   1.0       bbbbbbbbbbbb   About an hour ago   1.23kB",
        "<none>                               <none>    cccccccccccc   N/A                 0B",
    ]


def test_an_empty_table_has_its_headers() -> None:
    assert render([], HEADERS, COLUMNS, "table") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (
            "{{.Repository}}:{{.Tag}}",
            ["busybox:latest", "team/app:1.0", "registry.example.com:5000/team/app:1.0", "<none>:<none>"],
        ),
        (
            r"table {{.ID}}\t{{.Size}}",
            [
                "IMAGE ID       SIZE",
                "aaaaaaaaaaaa   7.81MB",
                "bbbbbbbbbbbb   1.23kB",
                "bbbbbbbbbbbb   1.23kB",
                "cccccccccccc   0B",
            ],
        ),
        (r"{{.Tag}}\t{{len .ID}}", ["latest\t12", "1.0\t12", "1.0\t12", "<none>\t12"]),
    ],
    ids=["template", "table-template", "tab-in-template"],
)
def test_formats(form: str, lines: list[str]) -> None:
    assert render(_rows(), HEADERS, COLUMNS, form).splitlines() == lines


def test_json_is_one_object_a_line_with_sorted_keys() -> None:
    first = json.loads(render(_rows(), HEADERS, COLUMNS, "json").splitlines()[0])
    assert list(first) == sorted(first)
    assert first["CreatedAt"] == "2026-02-02 02:37:00 +0000 UTC"
    assert (first["ID"], first["Digest"]) == ("a" * 12, f"sha256:{'a' * 64}")


def test_an_unknown_field_names_those_there_are() -> None:
    with pytest.raises(InvalidTemplate, match="no field 'Nope'; there are: Containers, CreatedAt"):
        render(_rows(), HEADERS, COLUMNS, "{{.Nope}}")


def test_wide_characters_keep_the_columns_straight() -> None:
    assert align([["名前", "x"], ["n", "y"]]) == "名前      x\nn         y\n"


def test_history_cuts_long_commands_and_joins_lines() -> None:
    steps = [
        Step(
            "sha256:" + "d" * 64,
            "2026-02-02T02:39:00Z",
            "RUN /bin/sh -c apt-get update &&\n\tapt-get install -y nothing",
            12_300_000,
            "c",
        ),
        Step("<missing>", "", "ADD rootfs", 5, ""),
    ]
    rows = history_rows(steps, NOW_S, whole=False, human=True)
    text = render(rows, HISTORY_HEADERS, ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"], "")
    assert text.splitlines() == [
        "IMAGE          CREATED              CREATED BY                                      SIZE      COMMENT",
        "dddddddddddd   About a minute ago   RUN /bin/sh -c apt-get update &&  apt-get in…   12.3MB    c",
        "<missing>      N/A                  ADD rootfs                                      5B        ",
    ]


def test_history_without_rounding() -> None:
    [row] = history_rows(
        [Step("<missing>", "2026-02-02T02:39:00Z", "x" * 60, 1234, "")], NOW_S, whole=True, human=False
    )
    assert (row["CreatedSince"], row["Size"], row["CreatedBy"]) == ("2026-02-02T02:39:00Z", "1234", "x" * 60)
