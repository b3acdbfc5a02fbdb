"""Kafka's listener keys, right and wrong."""

import pytest

from broker.config import Config, ConfigError
from broker.listeners import SecurityProtocol, listeners


def test_listen_alone_is_one_plaintext_listener() -> None:
    """The simple way stays as it is; a wildcard address is advertised as the loopback."""
    (listener,) = listeners(Config(listen="0.0.0.0:9092"))
    assert (listener.protocol, listener.host, listener.port) == (SecurityProtocol.PLAINTEXT, "0.0.0.0", 9092)
    assert listener.advertise(9092) == ("127.0.0.1", 9092)


def test_each_listener_has_its_protocol_and_its_advertised_address() -> None:
    """Names are protocols, or the map says which; ports that are left open are advertised as bound, names of hosts as names."""
    config = Config(
        listeners="PLAINTEXT://localhost:9092, external://:9094",
        advertised_listeners="EXTERNAL://broker.example:9094",
        listener_security_protocol_map="EXTERNAL:SASL_SSL",
    )
    inside, outside = listeners(config)
    assert inside.advertise(9092) == ("localhost", 9092)
    assert (outside.protocol.tls, outside.protocol.sasl, outside.host) == (True, True, "0.0.0.0")
    assert outside.advertise(9094) == ("broker.example", 9094)


def test_settings_of_a_listener_that_does_not_exist_are_refused() -> None:
    """A slip in the name would leave a listener less guarded than meant."""
    config = Config.load(None, ["listeners=SSL://:1", "listener.name.sssl.ssl.client.auth=required"])
    with pytest.raises(ConfigError, match=r"listener\.name\.sssl: sssl is not in listeners"):
        listeners(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listeners": "127.0.0.1:9092"}, "listeners: '127.0.0.1:9092' is not NAME://HOST:PORT"),
        ({"listeners": "SSL://127.0.0.1:x"}, "listeners: '127.0.0.1:x' is not HOST:PORT"),
        ({"listeners": "INNER://127.0.0.1:9"}, "listener.security.protocol.map: says nothing of the listener INNER"),
        ({"listeners": "SSL://:1,ssl://:2"}, "listeners: SSL stands there twice"),
        (
            {"listeners": "SSL://:1", "advertised_listeners": "TLS://a:1"},
            "advertised.listeners: TLS is not in listeners",
        ),
        (
            {"listeners": "A://:1", "listener_security_protocol_map": "A:TLS"},
            "listener.security.protocol.map: 'A:TLS' is not NAME:PROTOCOL with one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
        ),
    ],
)
def test_a_bad_value_is_refused_by_name(settings: dict[str, str], message: str) -> None:
    """The error names the key and what it says."""
    with pytest.raises(ConfigError) as refused:
        listeners(Config(**settings))
    assert str(refused.value) == message
