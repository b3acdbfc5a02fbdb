"""PLAIN and SCRAM without a connection: who is right gets in, whatever else is sent does not."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import ConfigError
from broker.security.plain import PlainExchange, PlainUsers
from broker.security.sasl import BrokenExchange, Exchange, SaslFailure
from broker.security.scram import MECHANISMS, Credential, ScramExchange, ScramMechanism
from tests.unit.broker.security.scram_client import ScramClient

# Kafka's SCRAM takes names of ASCII alone.
names = st.text(st.characters(min_codepoint=1, max_codepoint=0x7F), min_size=1, max_size=20)
passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
mechanisms = st.sampled_from(MECHANISMS)


def stored(mechanism: ScramMechanism, name: str, password: str) -> ScramExchange:
    users = {(name, mechanism): Credential.of_password(mechanism, password, iterations=4096)}
    return ScramExchange(mechanism, lambda *key: users.get(key))


@settings(max_examples=40)  # each costs milliseconds of hashing
@given(mechanisms, names, passwords)
def test_scram_lets_in_who_knows_the_password(mechanism: ScramMechanism, name: str, password: str) -> None:
    """Any name and password; and the server proves that it knows it too."""
    exchange, client = stored(mechanism, name, password), ScramClient(mechanism.hash_name, name, password)
    assert exchange.principal is None
    final = exchange.respond(client.final(exchange.respond(client.first())))
    assert client.verifies(final)
    assert exchange.principal == f"User:{name}"


@settings(max_examples=40)
@given(mechanisms, names, passwords, passwords)
def test_scram_keeps_out_who_does_not(mechanism: ScramMechanism, name: str, password: str, other: str) -> None:
    """Another password fails with the last message."""
    exchange, client = stored(mechanism, name, password), ScramClient(mechanism.hash_name, name, other)
    final = client.final(exchange.respond(client.first()))
    if other != password:
        with pytest.raises(SaslFailure, match="invalid credentials"):
            exchange.respond(final)
        assert exchange.principal is None


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), mechanisms, st.booleans())
def test_arbitrary_tokens_never_authenticate(tokens: list[bytes], mechanism: ScramMechanism, plain: bool) -> None:
    """They fail in one of the two known ways."""
    scram = stored(mechanism, "alice", "secret")
    exchange: Exchange = PlainExchange(lambda *_: False) if plain else scram
    client = ScramClient(mechanism.hash_name, "alice", "secret")
    try:
        if not plain and len(tokens) % 2:
            scram.respond(client.first())
        for token in tokens:
            exchange.respond(token)
    except (SaslFailure, BrokenExchange):
        pass
    assert exchange.principal is None


def test_a_credential_does_not_hold_the_password() -> None:
    """Two of the same password differ, both fit it, and neither contains it."""
    one, other = (Credential.of_password(ScramMechanism.SCRAM_SHA_512, "correct horse") for _ in range(2))
    assert one != other
    assert one.fits(ScramMechanism.SCRAM_SHA_512, "correct horse")
    assert not one.fits(ScramMechanism.SCRAM_SHA_512, "correct")
    assert b"correct" not in b"".join((one.salt, one.stored_key, one.server_key))


def test_plain_users_come_from_a_file_that_may_be_replaced(tmp_path: Path) -> None:
    """The new file counts from the next login on; one that cannot be read leaves everything as it was."""
    file = tmp_path / "users"
    file.write_text("# who\nalice=a=b#c\n")
    users = PlainUsers(file)
    assert users.verify("alice", "a=b#c")
    assert not users.verify("alice", "a")
    assert not users.verify("bob", "")
    (tmp_path / "new").write_text("alice=other\n")
    (tmp_path / "new").replace(file)
    assert users.verify("alice", "other")
    (tmp_path / "new").write_text("alice\n")
    (tmp_path / "new").replace(file)
    assert users.verify("alice", "other")


def test_a_file_of_users_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """And the line, without the password in it."""
    (tmp_path / "users").write_text("alice=ok\nsecret\n")
    with pytest.raises(ConfigError, match=r"sasl\.plain\.users\.file: .*line 2 is not NAME=PASSWORD") as refused:
        PlainUsers(tmp_path / "users")
    assert "secret" not in str(refused.value)
