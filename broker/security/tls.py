"""TLS for servers: versions, certificates, authorities, and whose certificate a client shows."""

import re
import ssl
from collections.abc import Iterator, Sequence
from typing import Self

from broker.config import Config, ConfigError
from broker.security.access import ANONYMOUS
from broker.security.stores import load_key_store, load_trust_store

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# RULE:pattern/replacement/[LU] or DEFAULT; a slash within stands behind a backslash.
_RULE = re.compile(r"\s*(?:(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\s*(?:,|$)")


class NoRuleApplies(Exception):
    """No mapping rule makes a name of the certificate's subject."""


class ServerTls:
    """The server's side of TLS as configured; certificate files that are replaced count from the next connection on."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError naming the key."""
        if config.ssl_keystore_location is None:
            raise ConfigError("ssl.keystore.location: a listener with TLS needs a file with key and certificate")
        if config.ssl_client_auth != "none" and config.ssl_truststore_location is None:
            raise ConfigError("ssl.truststore.location: ssl.client.auth needs the authorities that sign clients")
        self._config = config
        self._files = [p for p in (config.ssl_keystore_location, config.ssl_truststore_location) if p is not None]
        try:
            self._stamps = list(self._read_stamps())
            self._context = self._load()
        except OSError as error:
            raise ConfigError(f"ssl.keystore.location, ssl.truststore.location: {error}") from None

    @classmethod
    def without_client_auth(cls, config: Config) -> Self:
        """For HTTP, whose users have passwords."""
        return cls(config.model_copy(update={"ssl_client_auth": "none"}))

    def context(self) -> ssl.SSLContext:
        """For the next connection; raises OSError (ssl.SSLError) when the files were replaced by something unusable."""
        stamps = list(self._read_stamps())
        if stamps != self._stamps:
            self._context = self._load()
            self._stamps = stamps
        return self._context

    def _read_stamps(self) -> Iterator[tuple[int, int]]:
        for path in self._files:
            status = path.stat()
            yield status.st_mtime_ns, status.st_ino

    def _load(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        versions = _versions(config.ssl_enabled_protocols)
        context.minimum_version, context.maximum_version = versions[0], versions[-1]
        load_key_store(context, config)
        context.verify_mode = _CLIENT_AUTH[config.ssl_client_auth]
        if config.ssl_truststore_location is not None:
            load_trust_store(context, config)
        return context


def _versions(names: str) -> Sequence[ssl.TLSVersion]:
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in _VERSIONS]
    if unknown:
        raise ConfigError(f"ssl.enabled.protocols: {unknown[0]!r} is none of {', '.join(_VERSIONS)}")
    return sorted(_VERSIONS[name] for name in wanted)


class PrincipalMapping:
    """`ssl.principal.mapping.rules`: from a certificate's subject (RFC 2253) to a user's name (KIP-371)."""

    def __init__(self, rules: str) -> None:
        """Raises ConfigError."""
        self._rules: list[tuple[re.Pattern[str], str, str] | None] = []
        position = 0
        text = rules.strip()
        while position < len(text):
            match = _RULE.match(text, position)
            if match is None:
                raise ConfigError(
                    f"ssl.principal.mapping.rules: {text[position:]!r} is no RULE:pattern/replacement/[LU]"
                )
            position = match.end()
            self._rules.append(None if match[1] else _rule(match[2], match[3], match[4]))

    def principal(self, certificate: bytes | None) -> str:
        """Of the client's certificate in DER, ANONYMOUS without one; raises NoRuleApplies."""
        return ANONYMOUS if certificate is None else f"User:{self.name(subject(certificate))}"

    def name(self, subject_name: str) -> str:
        """Raises NoRuleApplies."""
        for rule in self._rules:
            if rule is None:
                return subject_name
            pattern, replacement, case = rule
            if match := pattern.fullmatch(subject_name):
                name = match.expand(replacement)
                return {"L": name.lower(), "U": name.upper()}.get(case, name)
        raise NoRuleApplies(f"No rules apply to {subject_name}")


def _rule(pattern: str, replacement: str, case: str) -> tuple[re.Pattern[str], str, str]:
    try:
        # Java's $1 is \g<1> here.
        return re.compile(pattern), re.sub(r"\$(\d+)", r"\\g<\1>", replacement), case
    except re.error as error:
        raise ConfigError(f"ssl.principal.mapping.rules: {pattern!r}: {error}") from None


def subject(certificate: bytes) -> str:
    """The subject's distinguished name as Java writes it (RFC 2253): `CN=alice,O=staff`."""
    from cryptography.x509 import load_der_x509_certificate  # only who shows a certificate pays for the import

    return load_der_x509_certificate(certificate).subject.rfc4514_string()
