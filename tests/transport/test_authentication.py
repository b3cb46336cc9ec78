from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import ConfigError
from otel_scorer.transport.authentication import Authenticator
from otel_scorer.transport.exchange import Credentials

TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


def basic(user: str) -> str:
    return f"Basic {base64.b64encode(user.encode()).decode()}"


@given(st.lists(TOKENS, min_size=1, max_size=4), TOKENS)
def test_exactly_the_given_tokens_are_accepted(tokens: list[str], other: str) -> None:
    door = Authenticator(Credentials(tokens=tuple(tokens)), "http")

    assert all(door.refusal_of(f"Bearer {token}") is None for token in tokens)
    assert (door.refusal_of(f"Bearer {other}") is None) == (other in tokens)
    assert door.refusal_of(basic(other)) is not None


def test_a_token_of_another_scheme_is_accepted_with_that_scheme_only() -> None:
    door = Authenticator(Credentials(tokens=("abc",), scheme="Api-Key"), "http")

    assert door.refusal_of("api-key abc") is None
    assert door.refusal_of("Bearer abc") is not None


def test_a_name_with_its_password_is_accepted_and_colons_belong_to_the_password() -> None:
    door = Authenticator(Credentials(users="app:a:b\nother: c "), "http")

    assert door.refusal_of(basic("app:a:b")) is None
    assert door.refusal_of(basic("app:a")) is not None
    assert door.refusal_of(basic("other: c")) is None
    assert door.refusal_of("Basic YXBwOmE6Yg") is not None, "base64 without its padding"


@pytest.mark.parametrize("given", [None, "", " ", "Bearer", "Bearer  ", "Basic", "\xff\xfe", "Bearer \xff"])
def test_what_is_no_authorization_is_refused(given: str | None) -> None:
    door = Authenticator(Credentials(tokens=("abc",), users="a:b"), "grpc")
    refused = door.refusal_of(given)

    assert refused is not None
    assert (refused.code, refused.http_status, refused.retry_after) == (16, 401, None)
    assert dict(refused.headers).keys() == {"www-authenticate"}
    assert len(refused.headers) == 2, "one challenge for each way in"


@pytest.mark.parametrize(
    "user", ["app:$2y$05$abcdef", "app:$apr1$abc$def", "app:{SHA}abc", "app:$6$a$b", "app", ":password", "app:"]
)
def test_what_is_no_plain_name_and_password_is_a_configuration_error(user: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Authenticator(Credentials(users=user), "http")

    assert "password" not in user or "password" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "tab\t", "ünicode", "line\nbreak"])
def test_what_no_header_can_carry_is_no_token(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Authenticator(Credentials(tokens=(token,)), "http")

    assert token not in str(caught.value)


def test_a_file_without_credentials_lets_nobody_in_by_being_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    for text in ("", "\n\n", "# only a comment\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="no credentials"):
            Authenticator(Credentials(token_file=file), "http")


def test_credentials_do_not_show_themselves() -> None:
    assert "abc" not in repr(Credentials(tokens=("abc",), users="abc:abc"))
