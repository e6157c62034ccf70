"""AWS's published test suite of signature version 4, as far as its requests are like ours."""

from __future__ import annotations

import pytest

from transfer.aws.signing import AwsKeys, Scope, signed_headers

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx"
    "7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q"
    "6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MOMENT_S = 1440938160.0  # 2015-08-30T12:36:00Z


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "session", "signed", "signature"),
    [
        pytest.param("GET", "/", {}, b"", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", id="get-vanilla"),
        pytest.param("POST", "/", {}, b"", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", id="post-vanilla"),
        pytest.param("POST", "/?Param1=value1", {}, b"", "", "host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11", id="post-vanilla-query"),
        pytest.param("GET", "/?Param2=value2&Param1=value1", {}, b"", "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", id="get-vanilla-query-order-key-case"),
        pytest.param("GET", "/?Param1=value2&Param1=value1", {}, b"", "", "host;x-amz-date", "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694", id="get-vanilla-query-order-value"),
        pytest.param("POST", "/", {"MY-HEADER1": "value1"}, b"", "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c", id="post-header-key-case"),
        pytest.param("POST", "/", {"My-Header1": "VALUE1"}, b"", "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d", id="post-header-value-case"),
        pytest.param("GET", "/", {"My-Header1": " value1", "My-Header2": ' "a   b   c"'}, b"", "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736", id="get-header-value-trim"),
        pytest.param("POST", "/", FORM, b"Param1=value1", "", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a", id="post-x-www-form-urlencoded"),
        pytest.param("POST", "/", {}, b"", SESSION, "host;x-amz-date;x-amz-security-token", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead", id="post-sts-header-before"),
    ],
)  # fmt: skip
def test_published_vectors(
    method: str, path: str, headers: dict[str, str], body: bytes, session: str, signed: str, signature: str
) -> None:
    keys = AwsKeys(KEYS.access_key_id, KEYS.secret_access_key, session)
    url = f"https://example.amazonaws.com{path}"
    sent = signed_headers(keys, Scope("us-east-1", "service"), method, url, headers, body, MOMENT_S)
    assert sent["X-Amz-Date"] == "20150830T123600Z"
    assert sent["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
        f" SignedHeaders={signed}, Signature={signature}"
    )


def test_secrets_are_not_in_repr() -> None:
    assert "secret" not in repr(AwsKeys("id", "secret", "secret"))
