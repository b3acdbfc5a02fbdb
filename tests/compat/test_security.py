"""TLS, client certificates, every SASL mechanism, ACLs and SCRAM users: with every client."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.broker_process import BrokerProcess, free_port
from tests.compat.conftest import HOUSE, fresh
from tests.compat.driver import ClientError, Driver, running
from tests.compat.roster import Client
from tests.integration.secure import Certificates
from tests.unit.broker.security.tokens import Provider

PASSWORD = "a secret, as they say"
SASL = (17, 36)
ACLS = (29, 30, 31)
SCRAM_USERS = (50, 51)

PROVIDER = Provider()
Connect = Callable[..., Driver]


@dataclass
class Secure:
    """A broker with a listener of every kind, an authorizer, and a client that may do everything."""

    addresses: dict[str, str]
    security: dict[str, str]  # paths of certificates, as drivers want them
    admin: Driver


def _pem(directory: Path, name: str, source: Path) -> tuple[str, str]:
    """Certificate and key of a user in files of their own."""
    key, begin, chain = source.read_text().partition("-----BEGIN CERTIFICATE")
    certificate, secret = directory / f"{name}.crt", directory / f"{name}.key"
    certificate.write_text(begin + chain)
    secret.write_text(key)
    return str(certificate), str(secret)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    directory = tmp_path_factory.mktemp("secure")
    certificates = Certificates.make(directory)
    users = directory / "users"
    users.write_text(f"alice={PASSWORD}\n")
    keys = directory / "jwks.json"
    keys.write_bytes(PROVIDER.jwks)
    process = BrokerProcess(directory, "group.initial.rebalance.delay.ms=0", "storage.sync=os")
    kinds = {name: f"localhost:{free_port()}" for name in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")}
    addresses = {"PLAINTEXT": process.bootstrap, **kinds}
    process.settings += (
        *certificates.settings("requested"),
        "ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/CN=$1/",
        "listeners=" + ",".join(f"{name}://{address}" for name, address in addresses.items()),
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"sasl.oauthbearer.jwks.endpoint.url=file://{keys}",
        f"sasl.plain.users.file={users}",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    )
    process.start()
    certificate, key = _pem(directory, "alice", certificates.user)
    security = {"ca": str(certificates.authority), "certificate": certificate, "key": key}
    with running(HOUSE.command, HOUSE.environment) as admin:
        admin.connect(bootstrap=process.bootstrap, security={})
        yield Secure(addresses, security, admin)
    process.end()


@pytest.fixture
def connect(client: Client, secure: Secure) -> Iterator[Connect]:
    """Starts a process of the client, connected to one of the listeners."""
    with contextlib.ExitStack() as stack:

        def connect(listener: str, **security: Any) -> Driver:
            driver = stack.enter_context(running(client.command, client.environment))
            driver.connect(bootstrap=secure.addresses[listener], security={"protocol": listener, **security})
            return driver

        yield connect


@pytest.fixture
def topic(secure: Secure) -> str:
    """A new topic of one partition, on the broker with an authorizer."""
    name = fresh("secure")
    secure.admin.create_topic(topic=name, partitions=1)
    return name


def round_trip(driver: Driver, topic: str) -> None:
    """A record larger than a TLS record, and back."""
    value = "x" * 70_000
    driver.producer(name="p", idempotent=False)
    driver.send(name="p", topic=topic, partition=0, records=[["k", value, []]])
    [got] = driver.read(topic=topic, start={"beginning": 0}, count=1, committed=False, timeout_s=30)
    assert got[3] == value


@pytest.mark.capability("TLS", apis=ACLS)
def test_tls(connect: Connect, secure: Secure, topic: str) -> None:
    """A client that trusts the authority, without a certificate of its own."""
    round_trip(connect("SSL", ca=secure.security["ca"]), topic)


@pytest.mark.capability("TLS with a client certificate", apis=ACLS)
def test_client_certificate(connect: Connect, secure: Secure, topic: str) -> None:
    """The certificate says who the client is, and an ACL what that one may do."""
    driver = connect("SSL", **secure.security)
    driver.producer(name="p", idempotent=False)
    with pytest.raises(ClientError):
        driver.send(name="p", topic=topic, partition=0, records=[["k", "forbidden", []]])
    secure.admin.allow(principal="User:CN=alice", topic=topic)
    round_trip(connect("SSL", **secure.security), topic)


@pytest.mark.capability("SASL/{mechanism}", apis=(*SASL, *ACLS, *SCRAM_USERS))
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl(connect: Connect, secure: Secure, topic: str, mechanism: str) -> None:
    """Over TLS and without; the user may do what an ACL says."""
    user = "alice" if mechanism == "PLAIN" else fresh("user")
    if mechanism != "PLAIN":
        secure.admin.scram_user(user=user, password=PASSWORD, mechanism=mechanism)
    secure.admin.allow(principal=f"User:{user}", topic=topic)
    who = {"mechanism": mechanism, "username": user, "password": PASSWORD}
    round_trip(connect("SASL_PLAINTEXT", **who), topic)
    driver = connect("SASL_SSL", ca=secure.security["ca"], **who)
    assert driver.read(topic=topic, start={"beginning": 0}, count=1, committed=False, timeout_s=30)


@pytest.mark.capability("SASL/OAUTHBEARER", apis=(*SASL, *ACLS))
def test_oauthbearer(connect: Connect, secure: Secure, topic: str) -> None:
    """A token of the identity provider says who the client is."""
    user = fresh("user")
    secure.admin.allow(principal=f"User:{user}", topic=topic)
    now_s = int(time.time())
    token = PROVIDER.token(sub=user, iat=now_s, exp=now_s + 3600, scope="kafka")
    round_trip(connect("SASL_PLAINTEXT", mechanism="OAUTHBEARER", token=token), topic)


@pytest.mark.capability("SASL: wrong password", apis=(*SASL, *ACLS, *SCRAM_USERS))
def test_wrong_password(connect: Connect, secure: Secure, topic: str) -> None:
    """The client is told, and gets nothing."""
    driver = connect("SASL_PLAINTEXT", mechanism="PLAIN", username="alice", password="guessed")
    with pytest.raises(ClientError):
        if not driver.read(topic=topic, start={"beginning": 0}, count=1, committed=False, timeout_s=2):
            raise ClientError("nothing read")  # librdkafka and kafkajs try again for ever


@pytest.mark.capability("ACLs", apis=ACLS)
def test_acls(connect: Connect, topic: str) -> None:
    """create, list, delete."""
    assert connect("PLAINTEXT").acls(topic=topic, principal="User:carol") == [1, 1, 1]


@pytest.mark.capability("SCRAM users", apis=SCRAM_USERS)
def test_scram_users(connect: Connect) -> None:
    """upsert, describe."""
    described = connect("PLAINTEXT").scram_user(user=fresh("user"), password=PASSWORD, mechanism="SCRAM-SHA-256")
    assert described == ["SCRAM_SHA_256"]
