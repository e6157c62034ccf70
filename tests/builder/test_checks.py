"""builder/dockerfile/checks.py: the build checks, with BuildKit's names and messages."""

from __future__ import annotations

import pytest

from builder.dockerfile.checks import (
    CheckOptions,
    base_image_platform,
    parse_check_options,
    run_checks,
    undefined_variables,
)
from builder.dockerfile.ignore import NOTHING, IgnoreRules
from builder.dockerfile.instructions import From
from builder.dockerfile.interpret import instructions
from builder.dockerfile.parse import parse
from builder.dockerfile.rules import INVALID_DEFINITION_DESCRIPTION, JSON_ARGS_RECOMMENDED, STAGE_NAME_CASING
from builder.dockerfile.stages import split_stages
from image.errors import InvalidInput
from image.platform import Platform
from image.span import Span


def warnings(text: str, ignore: IgnoreRules = NOTHING, reachable: set[int] | None = None) -> list[str]:
    document = parse(text.encode(), "Dockerfile")
    parsed = instructions(document)
    found = run_checks(document, parsed, split_stages(parsed), ignore=ignore, reachable=reachable)
    return [str(warning) for warning in found]


SAME_STAGE = "instructions should not be used in the same stage because only the last one will be used"
SIGNALS = "to prevent unintended behavior related to OS signals"
SENSITIVE = "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data"
INVALID_DEFAULT = (
    "InvalidDefaultArgInFrom: Default value for ARG busybox:$VERSION results in empty or invalid base image name"
)
HOST_PORT = "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping"
DESCRIBED = """# check=experimental=InvalidDefinitionDescription
# bar this
ARG foo=bar
# base is
FROM a AS base
# bad
ARG a b

# far

ARG c
# x
#
ARG d
# e f
ARG e
"""
REDUNDANT = "in FROM is redundant as this is the default behavior"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a AS BadName", ["StageNameCasing: Stage name 'BadName' should be lowercase (line 1)"]),
        ("FROM a as b", ["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]),
        ("from a AS b", ["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"]),
        ("FROM a\nCOPY x \\\n\n  y\n", ["NoEmptyContinuation: Empty continuation line (line 2)"]),
        ("From a as b\nFROM a", [
            "ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase) (line 1)"
        ]),
        ("from a\nCOPY x y\ncopy x y", [
            "ConsistentInstructionCasing: Command 'COPY' should match the case of the command majority (lowercase) (line 2)"
        ]),
        ("arg x\nFROM a\nCOPY x y", []),
        ("FROM a AS b\nFROM a AS b", [
            'DuplicateStageName: Duplicate stage name "b", stage names should be unique (line 2)'
        ]),
        ("FROM a AS scratch\nFROM scratch AS context", [
            'ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 1)',
            'ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 2)',
        ]),
        ("FROM a\nCMD x", [f"JSONArgsRecommended: JSON arguments recommended for CMD {SIGNALS} (line 2)"]),
        ("FROM a\nENTRYPOINT x", [f"JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT {SIGNALS} (line 2)"]),
        ('FROM a AS b\nSHELL ["s"]\nFROM b\nCMD x', []),
        ("FROM a\nMAINTAINER me", [
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"
        ]),
        ("FROM --platform=$BULIDPLATFORM a", [
            "UndefinedArgInFrom: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?) (line 1)"
        ]),
        ("ARG tag=latest\nFROM a:${tag}${version} AS b", [
            "UndefinedArgInFrom: FROM argument 'version' is not declared (line 2)"
        ]),
        ("ARG DEBUG\nFROM scratch${DEBUG}\nFROM --platform=$BUILDPLATFORM x", []),
        ("FROM a\nWORKDIR app/", [
            'WorkdirRelativePath: Relative workdir "app/" can have unexpected results if the base image changes (line 2)'
        ]),
        ("FROM a AS b\nWORKDIR /app\nFROM b\nWORKDIR sub", []),
        ("FROM a\nWORKDIR $HOME\nWORKDIR sub", []),
        ('FROM a\nCMD ["a"]\nHEALTHCHECK CMD x\nENTRYPOINT ["e"]\nCMD ["b"]\nHEALTHCHECK NONE\nENTRYPOINT ["f"]', [
            f"MultipleInstructionsDisallowed: Multiple CMD {SAME_STAGE} (line 2)",
            f"MultipleInstructionsDisallowed: Multiple HEALTHCHECK {SAME_STAGE} (line 3)",
            f"MultipleInstructionsDisallowed: Multiple ENTRYPOINT {SAME_STAGE} (line 4)",
        ]),
        ("FROM a\nENV k v\nLABEL k v", [
            'LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)',
            'LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format (line 3)',
        ]),
        ("FROM --platform=${TARGETPLATFORM} a", [
            f"RedundantTargetPlatform: Setting platform to predefined ${{TARGETPLATFORM}} {REDUNDANT} (line 1)"
        ]),
        ("FROM a\nARG auth=1 x\nENV git_key= PUBLIC_KEY= apikey=1\nARG public_token MONKEY SECRET_FILE", [
            f'{SENSITIVE} (ARG "auth") (line 2)',
            f'{SENSITIVE} (ENV "apikey") (line 3)',
            f'{SENSITIVE} (ENV "git_key") (line 3)',
        ]),
        ("ARG VERSION\nFROM busybox:$VERSION", [
            f"{INVALID_DEFAULT} (line 2)"
        ]),
        ('ARG V="latest"\nFROM busybox:${V}\nFROM busybox:x${W:-y}', [
            "UndefinedArgInFrom: FROM argument 'W' is not declared (did you mean V?) (line 3)"
        ]),
        ("FROM --platform=linux/amd64 a\nFROM --platform=linux/amd64 a AS my_amd64\nFROM --platform=linux/arm a AS linux", [
            'FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 1)'
        ]),
        ("FROM a\nEXPOSE 80/TCP $X/TCP", [
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)"
        ]),
        ("FROM a\nEXPOSE 127.0.0.1:80:80", [
            f"{HOST_PORT}, found '127.0.0.1:80:80' (line 2)"
        ]),
        ("# check=skip=all\nFROM a as B\nMAINTAINER x", []),
        ("# check=skip=FromAsCasing, MaintainerDeprecated\nFROM a as b\nMAINTAINER x", []),
        ("FROM a AS B\n# check=skip=MaintainerDeprecated\nMAINTAINER x", [
            "StageNameCasing: Stage name 'B' should be lowercase (line 1)"
        ]),
        (DESCRIBED, [
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# foo <description>` (line 3)",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 7)",
        ]),
        ("# base\n#\n# not it\nFROM a AS base", []),
    ],
)  # fmt: skip
def test_checks(text: str, expected: list[str]) -> None:
    assert warnings(text) == expected


def test_copy_of_an_ignored_file() -> None:
    text = "FROM a AS b\nCOPY ./x y /\nADD x https://x/x /\nCOPY --from=b x /\nCOPY $v /\nCOPY <<x /\nx\n"
    assert warnings(text, IgnoreRules.of(["x"])) == [
        'CopyIgnoredFile: Attempting to Copy file "x" that is excluded by .dockerignore (line 2)',
        'CopyIgnoredFile: Attempting to Add file "x" that is excluded by .dockerignore (line 3)',
    ]
    assert warnings(text, IgnoreRules.of(["x", "!x/y"])) == []


def test_only_reachable_stages() -> None:
    assert warnings("FROM a AS b\nMAINTAINER x\nFROM a", reachable={1}) == []


def test_undefined_variables() -> None:
    found = undefined_variables(Span("f", 3, 3), {"PAHT", "foo", "BUILDKIT_SBOM_SCAN_STAGE"}, ["PATH", "HOME"])
    assert [str(warning) for warning in found] == [
        "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 3)",
        "UndefinedVar: Usage of undefined variable '$foo' (line 3)",
    ]


def test_platform_of_the_base_image() -> None:
    origin = From("busybox", span=Span("f", 1, 1), original="FROM busybox", keyword="FROM")
    amd, arm = Platform("linux", "amd64"), Platform("linux", "arm", "v7")
    assert base_image_platform(origin, amd, amd) == ()
    (warning,) = base_image_platform(origin, amd, arm)
    assert warning.message == (
        'Base image busybox was pulled with platform "linux/arm/v7", expected "linux/amd64" for current build'
    )


def test_rules_have_the_addresses_of_their_pages() -> None:
    base = "https://docs.docker.com/go/dockerfile/rule"
    assert STAGE_NAME_CASING.url == f"{base}/stage-name-casing/"
    assert JSON_ARGS_RECOMMENDED.url == f"{base}/json-args-recommended/"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", CheckOptions()),
        ("skip=all", CheckOptions(frozenset({"all"}), skip_all=True)),
        ("skip=A, B;error=true", CheckOptions(frozenset({"A", "B"}), error=True)),
        (" error = 1 ; experimental=all", CheckOptions(frozenset(), False, frozenset({"all"}), True, True)),
    ],
)
def test_options(text: str, expected: CheckOptions) -> None:
    assert parse_check_options(text) == expected


@pytest.mark.parametrize("text", ["x", "skip", "nope=1", "error=maybe", "skip=a;;"])
def test_bad_options(text: str) -> None:
    with pytest.raises(InvalidInput, match="check option"):
        parse_check_options(text)


def test_an_experimental_rule_is_silent_unless_asked_for() -> None:
    assert not CheckOptions().wants(INVALID_DEFINITION_DESCRIPTION)
    assert CheckOptions(skip_all=True, experimental_all=True).wants(INVALID_DEFINITION_DESCRIPTION)
