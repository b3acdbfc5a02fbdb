"""Tokens that are right get in for as long as they hold; every other one is refused."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Config, ConfigError
from broker.security.oauthbearer import UNKNOWN_KEY_REFRESH_S, Keys, OAuthBearerExchange, TokenVerifier
from broker.security.sasl import SaslFailure
from tests.unit.broker.security.tokens import Provider

NOW_S = 1_700_000_000
PROVIDER = Provider()
STRANGER = Provider()


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def monotonic(self) -> float:
        return self.now_s

    def time_ms(self) -> int:
        return int(self.now_s * 1000)


def verifier(tmp_path: Path, **settings: Any) -> TokenVerifier:
    file = tmp_path / "jwks.json"
    file.write_bytes(PROVIDER.jwks)
    clock = Clock()
    return TokenVerifier(Config(**settings), Keys(f"file://{file}", clock, 3_600_000), clock)


def message(token: str, authorization_id: str = "") -> bytes:
    named = f"a={authorization_id}" if authorization_id else ""
    return f"n,{named},\x01auth=Bearer {token}\x01\x01".encode()


def exchanged(verify: TokenVerifier, data: bytes) -> OAuthBearerExchange:
    exchange = OAuthBearerExchange(verify.verify)
    answer = exchange.respond(data)
    if answer:  # the client acknowledges that its token is refused
        exchange.respond(b"\x01")
    return exchange


def test_a_right_token_names_the_user_and_the_end_of_the_session(tmp_path: Path) -> None:
    """With audience and issuer, where they are asked for; the client may say who it is."""
    settings = {"sasl_oauthbearer_expected_audience": "kafka,other", "sasl_oauthbearer_expected_issuer": "https://idp"}
    token = PROVIDER.token(sub="alice", exp=NOW_S + 60, iat=NOW_S, aud=["kafka"], iss="https://idp")
    for named in ("", "alice"):
        exchange = exchanged(verifier(tmp_path, **settings), message(token, named))
        assert (exchange.principal, exchange.expires_at_ms) == ("User:alice", (NOW_S + 60) * 1000)


CLAIMS: dict[str, Any] = {"sub": "alice", "exp": NOW_S + 60, "iat": NOW_S, "aud": "kafka", "iss": "https://idp"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW_S - 31}, "the token has expired"),
        ({"exp": None}, "not valid"),
        ({"exp": "soon"}, "not valid"),
        ({"nbf": NOW_S + 31}, "not valid yet"),
        ({"sub": None}, "not valid"),
        ({"sub": ""}, "not valid"),
        ({"sub": 7}, "not valid"),
        ({"aud": "elsewhere"}, "not valid"),
        ({"aud": None}, "not valid"),
        ({"iss": "https://other"}, "not valid"),
        ({"iss": None}, "not valid"),
    ],
)
def test_a_token_with_one_claim_wrong_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """At the second message, as clients expect; the reason names no secret."""
    settings = {"sasl_oauthbearer_expected_audience": "kafka", "sasl_oauthbearer_expected_issuer": "https://idp"}
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    with pytest.raises(SaslFailure, match=reason):
        exchanged(verifier(tmp_path, **settings), message(PROVIDER.token(**claims)))


def test_signatures_of_others_are_refused(tmp_path: Path) -> None:
    """Another key under the same id, no signature at all, and the public key used as a shared secret."""
    forged = [
        STRANGER.token(**CLAIMS),
        jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": "one"}),
        jwt.encode(CLAIMS, "x" * 64, algorithm="HS256", headers={"kid": "one"}),
        PROVIDER.token(**CLAIMS)[:-4] + "AAAA",
    ]
    for token in forged:
        with pytest.raises(SaslFailure):
            exchanged(verifier(tmp_path), message(token))


def test_another_name_than_the_tokens_is_refused(tmp_path: Path) -> None:
    """Clients may not act for others."""
    with pytest.raises(SaslFailure, match="different"):
        exchanged(verifier(tmp_path), message(PROVIDER.token(**CLAIMS), "bob"))


@given(st.binary(max_size=200))
def test_arbitrary_messages_are_refused(data: bytes) -> None:
    """In the one known way."""
    exchange = OAuthBearerExchange(lambda token: (_ for _ in ()).throw(SaslFailure("no")))  # type: ignore[arg-type]
    with pytest.raises(SaslFailure):
        exchange.respond(data)
        exchange.respond(b"\x01")
    assert exchange.principal is None


def test_a_new_key_is_fetched_in_the_background_but_not_for_every_guess() -> None:
    """The attempt that names it first fails; a later one gets in. Made-up ids ask the provider once in ten seconds."""
    clock, documents = Clock(), [PROVIDER.jwks]
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return documents[-1]

    keys = Keys("https://idp/keys", clock, 3_600_000, fetch)
    wait_until(lambda: keys.get("one") is not None)
    newer = Provider("two")
    documents.append(newer.jwks)
    for _ in range(100):
        assert keys.get("two") is None
    assert len(asked) == 1
    clock.now_s += UNKNOWN_KEY_REFRESH_S + 1
    keys.get("two")
    wait_until(lambda: keys.get("two") is not None)
    assert len(asked) == 2


def test_keys_that_cannot_be_fetched_leave_the_known_ones() -> None:
    """An identity provider that is down for a while ends no session."""
    clock = Clock()
    answers: list[Any] = [PROVIDER.jwks, OSError("down"), b"{}", b"nonsense"]
    asked = SimpleNamespace(count=0)

    def fetch(_: str) -> bytes:
        answer = answers[min(asked.count, 3)]
        asked.count += 1
        if isinstance(answer, OSError):
            raise answer
        return bytes(answer)

    keys = Keys("https://idp/keys", clock, 1000, fetch)
    wait_until(lambda: keys.get("one") is not None)
    for count in (2, 3, 4):
        clock.now_s += 2
        wait_until(lambda: keys.get("one") is not None and asked.count == count)  # noqa: B023 - awaited at once


def wait_until(condition: Any) -> None:
    """Until the thread that fetches has done so."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_file_of_keys_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """At the start, not at the first login."""
    with pytest.raises(ConfigError, match=r"sasl\.oauthbearer\.jwks\.endpoint\.url"):
        Keys(f"file://{tmp_path}/none", Clock(), 1000)
    (tmp_path / "jwks.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a JWKS document"):
        Keys(f"file://{tmp_path}/jwks.json", Clock(), 1000)
