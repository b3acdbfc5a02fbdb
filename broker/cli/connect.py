"""Connections to the broker named by --bootstrap, with failures that say what is wrong."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker.cli.client_properties import client_settings
from broker.cli.failure import Failure
from broker.cli.options import DEFAULT_BOOTSTRAP

_CONNECT_TIMEOUT_S = 5.0
_BOOTSTRAP_TIMEOUT_MS = 5_000


def _reach(bootstrap: str) -> dict[str, Any]:
    """Connection settings. Fails at once and clearly, where kafka-python would retry and log for many seconds."""
    from broker.config import ConfigError, parse_address

    settings = client_settings()
    configured = settings.pop("bootstrap_servers", None)
    if configured is not None and bootstrap == DEFAULT_BOOTSTRAP:
        bootstrap = configured
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
                return {"bootstrap_servers": servers, "bootstrap_timeout_ms": _BOOTSTRAP_TIMEOUT_MS, **settings}
        except OSError as error:
            reason = error.strerror or str(error)
    raise Failure(f"no broker answers at {bootstrap}: {reason}. Start one with `senselog serve`, or give --bootstrap")


@contextmanager
def admin(bootstrap: str) -> Iterator[Any]:
    """kafka-python's KafkaAdminClient."""
    reached = _reach(bootstrap)
    from kafka import KafkaAdminClient

    client = KafkaAdminClient(client_id="senselog-cli", **reached)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def consumer(bootstrap: str, **settings: Any) -> Iterator[Any]:
    """kafka-python's KafkaConsumer, without a group."""
    reached = _reach(bootstrap)
    from kafka import KafkaConsumer

    client = KafkaConsumer(
        client_id="senselog-cli",
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        **reached,
        **settings,
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def producer(bootstrap: str, **settings: Any) -> Iterator[Any]:
    """kafka-python's KafkaProducer."""
    reached = _reach(bootstrap)
    from kafka import KafkaProducer

    client = KafkaProducer(client_id="senselog-cli", **reached, **settings)
    try:
        yield client
    finally:
        client.close(timeout=10)


@contextmanager
def searcher(bootstrap: str) -> Iterator[Any]:
    """Senselog's own client, which searches over the same port."""
    reached = _reach(bootstrap)
    from senselog_client import SenselogClient

    with SenselogClient(client_id="senselog-cli", **reached) as client:
        yield client
