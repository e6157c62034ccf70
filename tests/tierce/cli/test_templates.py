"""Go templates: what they print, and how they fail. A real docker client is the judge."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image.errors import InvalidTemplate
from tierce.cli.templates.execute import render_text
from tierce.documents import NIL_LIST, NIL_MAP, Record

CONTEXT = Record(
    Current=True,
    Description="Current DOCKER_HOST based configuration",
    DockerEndpoint="unix:///var/run/docker.sock",
    Error="",
    Name="default",
)

AS_DOCKER_PRINTS = [
    ("{{.Name}}", "default"),
    ("{{$.Name}}", "default"),
    ("{{.Current}}", "true"),
    ("{{with .Name}}{{.}}{{$.Current}}{{end}}", "defaulttrue"),
    (
        "{{1e6}} {{123456789.0}} {{1.5}} {{1e21}} {{0.00001}} {{100000.0}}",
        "1e+06 1.23456789e+08 1.5 1e+21 1e-05 100000",
    ),
    ("{{0x1F}} {{0b101}} {{0o17}} {{017}} {{1_000}} {{-3}} {{+3}}", "31 5 15 15 1000 -3 3"),
    ("{{'a'}}", "97"),
    ("{{print `raw`}}", "raw"),
    ("a {{- 1 -}} b", "a1b"),
    ("a {{- /* c */ -}} b", "ab"),
    ("x{{/* c */}}y", "xy"),
    ('{{split "a,b" ","}}', "[a b]"),
    ('{{range split "a,b" ","}}<{{.}}>{{end}}', "<a><b>"),
    ('{{range $i,$e := split "a,b" ","}}{{$i}}{{$e}}{{end}}', "0a1b"),
    ('{{range split "a,b,c" ","}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}', "ac"),
    ('{{range split "a,b,c" ","}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ('{{len "abc"}} {{len (split "a,b" ",")}}', "3 2"),
    ('{{index (split "a,b" ",") 1}}', "b"),
    ('{{slice "abcdef" 1 3}}', "bc"),
    ('{{title "hello wORLD it\'s"}}', "Hello WORLD It'S"),
    ('{{lower "ABC"}}{{upper "x"}}', "abcX"),
    ('{{pad "x" 1 2}}|', " x  |"),
    ('{{truncate "abcdef" 3}}{{truncate "a" 3}}', "abca"),
    ('{{join (split "a,b" ",") "+"}}', "a+b"),
    (
        '{{eq 1 1}} {{eq 1 2 1}} {{ne 1 2}} {{lt 1 2}} {{gt "b" "a"}} {{le 1 1}} {{ge 1 2}}',
        "true true true true true true false",
    ),
    ('{{and 1 0}} {{or 0 "x"}} {{not 0}} {{and 1 2 3}}', "0 x true 3"),
    ('{{print "a" 1 2 "b" 3}}|{{print 1 2}}|{{print true false}}', "a1 2b3|1 2|true false"),
    ('{{html "<a href=\\"x\\">\'&"}}', "&lt;a href=&#34;x&#34;&gt;&#39;&amp;"),
    ('{{urlquery "a b&c/d"}}', "a+b%26c%2Fd"),
    ('{{json "a<b>&"}} {{json (split "a,b" ",")}}', '"a<b>&" ["a","b"]'),
    ('{{"a" | printf "%s-%s" "b"}}', "b-a"),
    ("{{$x := 3}}{{$x}}{{$x = 4}}{{$x}}", "34"),
    ("{{if 0}}a{{else if 1}}b{{else}}c{{end}}", "b"),
    ('{{with ""}}a{{else}}b{{end}}', "b"),
    (
        '{{printf "%5d|%-5d|%05d|%+d|%x|%X|%#x|%o|%b|%c|%U|%q" 42 42 42 42 255 255 255 8 5 65 65 65}}',
        "   42|42   |00042|+42|ff|FF|0xff|10|101|A|U+0041|'A'",
    ),
    ('{{printf "%v %g %f %.2f %e" 1e6 2.5 1.5 2.345 12345.678}}', "1e+06 2.5 1.500000 2.35 1.234568e+04"),
    ('{{printf "%5.1f|%6s|%-6s|%.2s" 3.14159 "ab" "ab" "abcdef"}}', "  3.1|    ab|ab    |ab"),
    ('{{printf "%s %d" 1 "x"}}', "%!s(int=1) %!d(string=x)"),
    (
        '{{printf "%d"}} {{printf "%d" 1 2}} {{printf "%z" 1}} {{printf "%"}}',
        "%!d(MISSING) 1%!(EXTRA int=2) %!z(int=1) %!(NOVERB)",
    ),
    ('{{printf "%t %T %T %T" true 1 "a" 1.5}}', "true int string float64"),
    ('{{printf "%q" (split "a b" " ")}} {{printf "%s" (split "a b" " ")}}', '["a" "b"] [a b]'),
    ('{{printf "%08.3f|%+.1f|% d|%3c|" 3.14159 2.0 5 65}}', "0003.142|+2.0| 5|  A|"),
]

FAILING = [
    ("{{.Nope}}", "1:3"),
    ("{{.Name.Foo}}", "1:3"),
    ("{{.Name | foo}}", "1:11"),
    ("{{.Foo", "1:7"),
    ("{{if 1}}", "1:9"),
    ("{{end}}", "1:3"),
    ("{{}}", "1:3"),
    ("{{.Name}", "1:8"),
    ("{{nil}}", "1:3"),
    ("{{foo}}", "1:3"),
    ('{{"a" "b"}}', "1:3"),
    ('x\n  {{eq "a" 1}}', "2:5"),
    ("{{lt true false}}", "1:3"),
    ('{{index (split "a" ",") 5}}', "1:3"),
    ("{{len 3}}", "1:3"),
    ('{{join "a" "b"}}', "1:3"),
    ("{{break}}", ""),
    ('{{range "abc"}}{{.}}{{end}}', ""),
    ("{{printf 3}}", "1:3"),
    ('{{"\\q"}}', "1:3"),
    ("{{$x}}", "1:3"),
    ("{{3-}}", "1:4"),
]


@pytest.mark.parametrize(("template", "printed"), AS_DOCKER_PRINTS, ids=[template for template, _ in AS_DOCKER_PRINTS])
def test_prints_what_docker_prints(template: str, printed: str) -> None:
    assert render_text(template, CONTEXT) == printed


@pytest.mark.peer
def test_docker_itself_agrees_with_the_tables(tmp_path: Path) -> None:
    """``docker context ls`` needs no daemon and has one known row, so it is a template evaluator."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("needs the docker client")

    def by_docker(template: str) -> subprocess.CompletedProcess[str]:
        environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        argv = [docker, "context", "ls", "--format", template]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)

    for template, printed in AS_DOCKER_PRINTS:
        assert by_docker(template).stdout == printed + "\n", template
    for template, _ in FAILING:
        done = by_docker(template)
        assert done.returncode or "parsing error" in done.stderr, template


@pytest.mark.parametrize(("template", "position"), FAILING, ids=[template for template, _ in FAILING])
def test_a_mistake_is_one_line_with_its_place(template: str, position: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        render_text(template, CONTEXT)
    assert caught.value.position == position
    assert "\n" not in str(caught.value)


DOCUMENT = Record(
    Id="sha256:abc",
    Config=Record(Env=["A=1", "B=2"], Labels={"k": "v", "com.example.x": "y"}, Entrypoint=NIL_LIST, Volumes=NIL_MAP),
    Size=12,
    Nothing=None,
)


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[com.example.x:y k:v]"),
        ("{{.Config.Labels.k}}", "v"),
        ("{{.Config.Labels.absent}}", "<no value>"),
        ('{{index .Config.Labels "com.example.x"}}', "y"),
        ('{{index .Config.Labels "absent"}}', ""),
        ("{{.Config.Entrypoint}} {{.Config.Volumes}}", "[] map[]"),
        ("{{json .Config.Entrypoint}} {{json .Config.Volumes}}", "null null"),
        ("{{range .Config.Entrypoint}}x{{else}}none{{end}}", "none"),
        ("{{with .Config.Volumes}}x{{else}}none{{end}}", "none"),
        ("{{len .Config.Entrypoint}}", "0"),
        ("{{.Nothing}}", "<no value>"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "com.example.x=y;k=v;"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        (
            "{{json .Config}}",
            '{"Env":["A=1","B=2"],"Labels":{"com.example.x":"y","k":"v"},"Entrypoint":null,"Volumes":null}',
        ),
        ("{{(index .Config.Env 0)}}", "A=1"),
        ("{{(.Config).Env}}", "[A=1 B=2]"),
        ('{{.Size | printf "%05d"}}', "00012"),
        ("{{$c := .Config}}{{$c.Labels.k}}", "v"),
        ("{{- .Id -}}  \n", "sha256:abc"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("no action at all }} {", "no action at all }} {"),
    ],
)
def test_documents(template: str, printed: str) -> None:
    assert render_text(template, DOCUMENT) == printed


def test_deep_nesting_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidTemplate, match="nested too deeply"):
        render_text("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", DOCUMENT)


def test_a_template_of_any_size_is_not_taken() -> None:
    with pytest.raises(InvalidTemplate, match="over the limit"):
        render_text("x" * 100_000, DOCUMENT)


def test_output_has_a_limit() -> None:
    with pytest.raises(InvalidTemplate, match="the output is longer"):
        render_text('{{range 1000000}}{{printf "%1000d" .}}{{end}}', DOCUMENT)


_pieces = st.sampled_from([
    "{{", "}}", "{{- ", " -}}", ".", ".Id", ".Config.Env", "$", "$x", ":=", "=", "|", "(", ")", "if ", "else", "else if ",
    "end", "range ", "with ", "break", "continue", "index ", "printf ", "json ", "len ", "eq ", "slice ", "nil", "true",
    '"a"', "`b`", "'c'", "1", "-2", "3.5", "1e400", "0x", '"%d %q %s"', " ", "\n", "/*", "*/", "text", "\\", '"', "é",
])  # fmt: skip
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(Record),
    max_leaves=8,
)


@settings(deadline=None, max_examples=400)
@given(st.lists(_pieces, max_size=14).map("".join) | st.text(max_size=30), _values)
def test_no_template_gives_a_traceback(template: str, value: Any) -> None:
    with suppress(InvalidTemplate):
        render_text(template, Record(Id=value, Config=Record(Env=value)))


_verbs = st.sampled_from("vdsqxXtTcUfgeboOzE%+-# 0.5123")


@settings(deadline=None, max_examples=300)
@given(st.lists(_verbs, min_size=1, max_size=8).map("".join), _values)
def test_no_verb_gives_a_traceback(verb: str, value: Any) -> None:
    with suppress(InvalidTemplate):
        render_text("{{printf $.F $.V}}", Record(F="%" + verb, V=value))
