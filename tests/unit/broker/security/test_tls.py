"""Names of users from client certificates, and certificates that are replaced while the broker runs."""

import ssl
import tempfile
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from pydantic import SecretStr

from broker.config import Config, ConfigError
from broker.security.stores import key_store
from broker.security.tls import NoRuleApplies, PrincipalMapping, ServerTls, subject

# From the documentation of KIP-371.
RULES = (
    "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/,"
    "RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L,"
    "RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U,DEFAULT"
)


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        ("DEFAULT", "CN=alice,O=staff", "CN=alice,O=staff"),
        (RULES, "CN=serviceuser,OU=ServiceUsers,O=Unknown,L=Unknown,ST=Unknown,C=Unknown", "serviceuser"),
        (RULES, "CN=adminUser,OU=Admin,O=Unknown,L=Unknown,ST=Unknown,C=Unknown", "adminuser@admin"),
        (RULES, "CN=duke,OU=JavaSoft", "DUKE"),
        (RULES, "OU=nobody", "OU=nobody"),
        (r"RULE:^CN=(.*)\/(.*)$/$2\/$1/", "CN=a/b", "b/a"),
    ],
)
def test_rules_make_names_of_subjects(rules: str, name: str, expected: str) -> None:
    """The first rule that fits; Java's $1, slashes behind backslashes, L and U."""
    assert PrincipalMapping(rules).name(name).replace("\\", "") == expected


def test_a_subject_that_no_rule_fits_has_no_name() -> None:
    """And so no principal."""
    with pytest.raises(NoRuleApplies):
        PrincipalMapping("RULE:^CN=(.*)$/$1/").name("O=staff")


@pytest.mark.parametrize("rules", ["RULE:a", "NOTHING", "RULE:(/b/", "DEFAULT DEFAULT"])
def test_rules_that_cannot_be_read_are_refused(rules: str) -> None:
    """By the name of their key."""
    with pytest.raises(ConfigError, match=r"ssl\.principal\.mapping\.rules"):
        PrincipalMapping(rules)


def test_a_subject_is_written_as_java_writes_it() -> None:
    """The most particular part first."""
    certificate = trustme.CA().issue_cert("broker", common_name="alice", organization_name="staff")
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    assert subject(der).startswith("CN=alice,")
    assert subject(der).endswith("O=staff")


def test_a_replaced_certificate_counts_from_the_next_connection_on(tmp_path: Path) -> None:
    """A new context for a new file, the same one otherwise."""
    file = tmp_path / "broker.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    tls = ServerTls(Config(ssl_keystore_location=file))
    first = tls.context()
    assert tls.context() is first
    file.unlink()
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    assert tls.context() is not first


def _stores(directory: Path, password: bytes) -> Config:
    """A key store and a trust store of PKCS #12."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    encryption = serialization.BestAvailableEncryption(password)
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    [certificate] = [x509.load_pem_x509_certificate(pem.bytes()) for pem in issued.cert_chain_pems]
    root = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    keys, trusted = directory / "keys.p12", directory / "trusted.p12"
    keys.write_bytes(pkcs12.serialize_key_and_certificates(b"broker", key, certificate, [root], encryption))
    trusted.write_bytes(pkcs12.serialize_key_and_certificates(None, None, None, [root], encryption))
    return Config(
        ssl_keystore_type="PKCS12",
        ssl_keystore_location=keys,
        ssl_keystore_password=SecretStr("secret"),
        ssl_truststore_type="PKCS12",
        ssl_truststore_location=trusted,
        ssl_truststore_password=SecretStr("secret"),
        ssl_client_auth="required",
    )


def test_stores_may_be_pkcs12(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, chain and authorities; nothing of it stays in a file."""
    config = _stores(tmp_path, b"secret")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    context = ServerTls(config).context()
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not list(temporary.iterdir())
    assert key_store(config).count(b"-----BEGIN") == 3  # the key, its certificate, the authority's


def test_a_pkcs12_store_that_does_not_open_is_named(tmp_path: Path) -> None:
    """A wrong password; a store of authorities in place of keys."""
    with pytest.raises(
        ConfigError, match=r"ssl\.keystore\.location, ssl\.truststore\.location: \S+keys\.p12: Invalid password"
    ):
        ServerTls(_stores(tmp_path, b"another"))
    config = _stores(tmp_path, b"secret")
    swapped = config.model_copy(update={"ssl_keystore_location": config.ssl_truststore_location})
    with pytest.raises(ConfigError, match=r"trusted\.p12: holds no private key"):
        ServerTls(swapped)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """A listener with TLS needs a key; client certificates need an authority."""
    with pytest.raises(ConfigError, match=r"ssl\.keystore\.location: a listener with TLS needs"):
        ServerTls(Config())
    with pytest.raises(ConfigError, match=r"ssl\.truststore\.location: ssl\.client\.auth needs"):
        ServerTls(Config(ssl_keystore_location=tmp_path / "x", ssl_client_auth="required"))
    with pytest.raises(ConfigError, match="No such file"):
        ServerTls(Config(ssl_keystore_location=tmp_path / "x"))
