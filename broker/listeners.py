"""The addresses that Kafka clients reach this broker at, from Kafka's `listeners` keys or the one `listen` address."""

import re
from dataclasses import dataclass
from enum import StrEnum

from broker.config import Config, ConfigError, format_address, parse_address

_LISTENER = re.compile(r"([A-Za-z0-9._-]+)://(.*)")
# What clients on this machine can use in place of an address that stands for all of them.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_EVERY_ADDRESS = "0.0.0.0"
DEFAULT_NAME = "PLAINTEXT"


class SecurityProtocol(StrEnum):
    """Kafka's four: with or without TLS, with or without SASL."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def tls(self) -> bool:
        return self in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def sasl(self) -> bool:
        return self in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)


@dataclass(frozen=True, slots=True)
class Listener:
    """One address: its name, how it is protected, where it is bound, and what clients are told to connect to."""

    name: str
    protocol: SecurityProtocol
    host: str
    port: int
    advertised: tuple[str, int] | None = None

    @property
    def bound(self) -> str:
        """As in `listeners`."""
        return f"{self.name}://{format_address(self.host, self.port)}"

    def advertise(self, port: int) -> tuple[str, int]:
        """What clients are told once `port` is bound; an address that stands for all becomes the loopback.

        A name stays a name, as in Kafka: a certificate may stand for it alone.
        """
        if self.advertised is None:
            return _LOOPBACK.get(self.host, self.host), port
        return self.advertised[0], self.advertised[1] or port


def listeners(config: Config) -> tuple[Listener, ...]:
    """Every configured listener, the first one first; raises ConfigError naming the key."""
    if not config.listeners:
        advertised = parse_address(config.advertised_listen) if config.advertised_listen else None
        return (Listener(DEFAULT_NAME, SecurityProtocol.PLAINTEXT, *parse_address(config.listen), advertised),)
    protocols = _protocols(config)
    bound = _addresses("listeners", config.listeners)
    advertised_by_name = _addresses("advertised.listeners", config.advertised_listeners)
    for name in advertised_by_name.keys() - bound.keys():
        raise ConfigError(f"advertised.listeners: {name} is not in listeners")
    for name in config.listener_name:
        if name.upper() not in bound:
            raise ConfigError(f"listener.name.{name}: {name} is not in listeners")
    found = []
    for name, (host, port) in bound.items():
        if name not in protocols:
            raise ConfigError(f"listener.security.protocol.map: says nothing of the listener {name}")
        found.append(Listener(name, protocols[name], host or _EVERY_ADDRESS, port, advertised_by_name.get(name)))
    return tuple(found)


def _addresses(key: str, value: str) -> dict[str, tuple[str, int]]:
    """`NAME://HOST:PORT,…`; a missing host means every address, as in Kafka."""
    found: dict[str, tuple[str, int]] = {}
    for part in filter(None, (one.strip() for one in value.split(","))):
        match = _LISTENER.fullmatch(part)
        if match is None:
            raise ConfigError(f"{key}: {part!r} is not NAME://HOST:PORT")
        name, address = match[1].upper(), match[2]
        if name in found:
            raise ConfigError(f"{key}: {name} stands there twice")
        try:
            found[name] = ("", parse_address(f"any{address}")[1]) if address.startswith(":") else parse_address(address)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
    return found


def _protocols(config: Config) -> dict[str, SecurityProtocol]:
    protocols = {protocol.value: protocol for protocol in SecurityProtocol}
    for part in filter(None, (one.strip() for one in config.listener_security_protocol_map.split(","))):
        name, separator, protocol = part.partition(":")
        if not separator or protocol.upper() not in SecurityProtocol.__members__:
            expected = ", ".join(SecurityProtocol)
            raise ConfigError(f"listener.security.protocol.map: {part!r} is not NAME:PROTOCOL with one of {expected}")
        protocols[name.upper()] = SecurityProtocol(protocol.upper())
    return protocols
