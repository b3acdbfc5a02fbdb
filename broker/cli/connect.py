"""Connections to the broker named by --bootstrap, with failures that say what is wrong."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker.cli.failure import Failure

_CONNECT_TIMEOUT_S = 5.0
_BOOTSTRAP_TIMEOUT_MS = 5_000


def _reach(bootstrap: str) -> list[str]:
    """Fails at once and clearly, where kafka-python would retry and log for many seconds."""
    from broker.config import ConfigError, parse_address

    # Its log lines are for programs; here each failure becomes one line of ours.
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    servers = [server.strip() for server in bootstrap.split(",") if server.strip()]
    reason = "no address given"
    for server in servers:
        try:
            host, port = parse_address(server if ":" in server else f"{server}:9092")
        except ConfigError as error:
            raise Failure(f"--bootstrap: {error}") from None
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S):
                return servers
        except OSError as error:
            reason = error.strerror or str(error)
    raise Failure(f"no broker answers at {bootstrap}: {reason}. Start one with `senselog serve`, or give --bootstrap")


@contextmanager
def admin(bootstrap: str) -> Iterator[Any]:
    """kafka-python's KafkaAdminClient."""
    servers = _reach(bootstrap)
    from kafka import KafkaAdminClient

    client = KafkaAdminClient(
        bootstrap_servers=servers, client_id="senselog-cli", bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def consumer(bootstrap: str, **settings: Any) -> Iterator[Any]:
    """kafka-python's KafkaConsumer, without a group."""
    servers = _reach(bootstrap)
    from kafka import KafkaConsumer

    client = KafkaConsumer(
        bootstrap_servers=servers,
        client_id="senselog-cli",
        bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS,
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        **settings,
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def producer(bootstrap: str, **settings: Any) -> Iterator[Any]:
    """kafka-python's KafkaProducer."""
    servers = _reach(bootstrap)
    from kafka import KafkaProducer

    client = KafkaProducer(
        bootstrap_servers=servers, client_id="senselog-cli", bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS, **settings
    )
    try:
        yield client
    finally:
        client.close(timeout=10)


@contextmanager
def searcher(bootstrap: str) -> Iterator[Any]:
    """Senselog's own client, which searches over the same port."""
    servers = _reach(bootstrap)
    from senselog_client import SenselogClient

    with SenselogClient(
        bootstrap_servers=servers, client_id="senselog-cli", bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS
    ) as client:
        yield client
