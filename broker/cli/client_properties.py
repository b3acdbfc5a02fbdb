"""`--client-config FILE`: how to reach a broker with TLS or SASL, in the words of Kafka's or librdkafka's client properties."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.cli.failure import Failure

ENVIRONMENT = "SENSELOG_CLIENT_CONFIG"
_JAAS = re.compile(r'(\w+)\s*=\s*"((?:\\.|[^"\\])*)"')


def _jaas(value: str) -> dict[str, Any]:
    """The options that a login module needs: username and password."""
    found = dict(_JAAS.findall(value))
    if not {"username", "password"} <= found.keys():
        raise Failure('sasl.jaas.config: expected …LoginModule required username="…" password="…";')
    return {
        "sasl_plain_username": found["username"].replace('\\"', '"'),
        "sasl_plain_password": found["password"].replace('\\"', '"'),
    }


def _as(setting: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {setting: value}


# A key and what it is to kafka-python.
_KEYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "bootstrap.servers": _as("bootstrap_servers"),
    "security.protocol": lambda value: {"security_protocol": value.upper()},
    "sasl.mechanism": _as("sasl_mechanism"),
    "sasl.mechanisms": _as("sasl_mechanism"),
    "sasl.username": _as("sasl_plain_username"),
    "sasl.password": _as("sasl_plain_password"),
    "sasl.jaas.config": _jaas,
    "ssl.truststore.location": _as("ssl_cafile"),
    "ssl.truststore.type": lambda _: {},
    "ssl.ca.location": _as("ssl_cafile"),
    "ssl.keystore.location": _as("ssl_certfile"),
    "ssl.keystore.type": lambda _: {},
    "ssl.certificate.location": _as("ssl_certfile"),
    "ssl.key.location": _as("ssl_keyfile"),
    "ssl.key.password": _as("ssl_password"),
    "ssl.endpoint.identification.algorithm": lambda value: {"ssl_check_hostname": value.lower() == "https"},
}


def client_settings() -> dict[str, Any]:
    """kafka-python's connection settings from the file that `--client-config` or the environment names; none without one.

    Raises Failure naming the file and the key.
    """
    name = os.environ.get(ENVIRONMENT)
    if not name:
        return {}
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"--client-config: cannot read {name}: {error}") from None
    settings: dict[str, Any] = {}
    for line in lines:
        if not line.strip() or line.lstrip().startswith(("#", "!")):
            continue
        key, separator, value = (part.strip() for part in line.partition("="))
        if not separator or key not in _KEYS:
            raise Failure(f"--client-config: {name}: {key!r} is none of {', '.join(_KEYS)}")
        settings |= _KEYS[key](value)
    return settings
