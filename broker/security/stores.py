"""Key and trust stores of TLS: PEM files as they are, PKCS #12 as PEM. Java's own JKS is not read."""

import contextlib
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from broker.config import Config


def key_store(config: Config) -> bytes:
    """Private key, certificate and chain in PEM, the key as the file has it; raises OSError."""
    location = Path(str(config.ssl_keystore_location))
    if config.ssl_keystore_type == "PEM":
        return location.read_bytes()
    return _unpack(location, config.ssl_keystore_password, None)


def load_key_store(context: ssl.SSLContext, config: Config) -> None:
    """Raises OSError, also as ssl.SSLError."""
    location = Path(str(config.ssl_keystore_location))
    if config.ssl_keystore_type == "PEM":
        # An empty one keeps OpenSSL from asking the terminal for the password of an encrypted key.
        context.load_cert_chain(location, password=_text(config.ssl_key_password))
        return
    with _encrypted(location, config.ssl_keystore_password) as (path, password):
        context.load_cert_chain(path, password=password)


def load_trust_store(context: ssl.SSLContext, config: Config) -> None:
    """Raises OSError, also as ssl.SSLError."""
    location = Path(str(config.ssl_truststore_location))
    if config.ssl_truststore_type == "PEM":
        context.load_verify_locations(location)
    else:
        pem = _unpack(location, config.ssl_truststore_password, None, with_key=False)
        context.load_verify_locations(cadata=pem.decode())


@contextlib.contextmanager
def _encrypted(location: Path, store_password: SecretStr | None) -> Iterator[tuple[str, str]]:
    """A file and its password for a moment: OpenSSL takes keys from files alone, and this one is never readable on a disk."""
    password = secrets.token_hex()
    with tempfile.NamedTemporaryFile() as file:
        file.write(_unpack(location, store_password, password))
        file.flush()
        yield file.name, password


def _unpack(location: Path, store_password: SecretStr | None, password: str | None, *, with_key: bool = True) -> bytes:
    """PKCS #12 as PEM, the key encrypted by `password`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12  # who has such a store pays for the import

    try:
        store = pkcs12.load_pkcs12(location.read_bytes(), _text(store_password).encode() or None)
    except ValueError as error:
        raise OSError(f"{location}: {error}") from None
    own = [store.cert] if store.cert is not None else []
    found = [entry.certificate.public_bytes(serialization.Encoding.PEM) for entry in [*own, *store.additional_certs]]
    if with_key:
        if store.key is None or not own:
            raise OSError(f"{location}: holds no private key with its certificate")
        form = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        found.insert(0, store.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form))
    if not found:
        raise OSError(f"{location}: holds no certificate")
    return b"".join(found)


def _text(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
