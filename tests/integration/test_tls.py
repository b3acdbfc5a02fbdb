"""TLS listeners, from outside: round trips, client certificates, peers that do not speak TLS."""

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tests.broker_process import BrokerProcess, free_port
from tests.integration.secure import Certificates, connect, start

API_VERSIONS = b"\0\0\0\x0a\0\x12\0\0\0\0\0\7\xff\xff"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[BrokerProcess]:
    process = start(tmp_path_factory.mktemp("broker"), "SSL", *certificates.settings("required"))
    yield process
    process.end()


def client_settings(broker: BrokerProcess, certificates: Certificates) -> dict[str, Any]:
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SSL",
        "ssl.ca.location": str(certificates.authority),
        "ssl.certificate.location": str(certificates.user),
        "ssl.key.location": str(certificates.user),
    }


def test_records_make_the_round_trip_over_mutual_tls(broker: BrokerProcess, certificates: Certificates) -> None:
    """Small and large ones: frames larger than what TLS hands over at once."""
    settings = client_settings(broker, certificates)
    values = [b"small", b"x" * 900_000, b"y" * 70_000]
    producer = Producer(settings)
    for value in values:
        producer.produce("secret", value)
    assert producer.flush(20) == 0
    consumer = Consumer({**settings, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["secret"])
    found = [message.value() for message in consumer.consume(len(values), timeout=20)]
    consumer.close()
    assert found == values


def test_a_client_without_a_certificate_is_refused(broker: BrokerProcess, certificates: Certificates) -> None:
    """`ssl.client.auth=required`."""
    context = ssl.create_default_context(cafile=certificates.authority)
    with connect(broker) as raw, contextlib.suppress(OSError):
        with context.wrap_socket(raw, server_hostname="localhost") as encrypted:  # TLS 1.3 tells the client later
            encrypted.sendall(API_VERSIONS)
            assert not encrypted.recv(1)
    broker.wait_for_log("TLS handshake failed")


def test_each_listener_has_its_own_certificate_and_asks_for_one_or_does_not(
    tmp_path: Path, certificates: Certificates
) -> None:
    """`listener.name.NAME.KEY`: one listener of strangers, who trust another authority, beside one of known clients."""
    strangers = Certificates.make(tmp_path)
    process = BrokerProcess(tmp_path, *certificates.settings("required"))
    open_address = f"127.0.0.1:{free_port()}"
    process.settings += (
        f"listeners=SSL://{process.bootstrap},OPEN://{open_address}",
        "listener.security.protocol.map=OPEN:SSL",
        "listener.name.open.ssl.client.auth=none",
        f"listener.name.open.ssl.keystore.location={strangers.broker}",
    )
    process.start()
    try:
        known = client_settings(process, certificates)
        assert AdminClient(known).list_topics(timeout=20).brokers
        stranger = {"bootstrap.servers": open_address, "security.protocol": "SSL"}
        stranger["ssl.ca.location"] = str(strangers.authority)
        assert AdminClient(stranger).list_topics(timeout=20).brokers
        for refused in (
            {**stranger, "bootstrap.servers": process.bootstrap},
            {**known, "bootstrap.servers": open_address},
        ):
            with pytest.raises(KafkaException):
                AdminClient(refused).list_topics(timeout=2)
    finally:
        process.end()


def test_plain_text_to_a_tls_listener_is_closed_and_disturbs_nobody(
    broker: BrokerProcess, certificates: Certificates
) -> None:
    """One line in the log, and the next client is served."""
    with connect(broker) as raw:
        raw.sendall(API_VERSIONS)
        while raw.recv(4096):
            pass  # the alert
    broker.wait_for_log("TLS handshake failed")
    assert AdminClient(client_settings(broker, certificates)).list_topics(timeout=20).brokers


def test_requests_that_come_with_the_end_of_the_handshake_are_answered(
    broker: BrokerProcess, certificates: Certificates
) -> None:
    """Bytes may arrive before the transport is known; they are kept, whole and in order."""
    context = ssl.create_default_context(cafile=certificates.authority)
    context.load_cert_chain(certificates.user)
    for _ in range(20):
        with context.wrap_socket(connect(broker), server_hostname="localhost", do_handshake_on_connect=False) as raw:
            raw.do_handshake()
            raw.sendall(API_VERSIONS)
            answer = raw.recv(4096)
            assert answer[4:8] == b"\0\0\0\7"
