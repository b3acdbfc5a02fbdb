"""A broker with listeners of one's own: certificates, addresses, settings."""

import socket
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from tests.broker_process import BrokerProcess
from tests.cable import HERE


@dataclass
class Certificates:
    """An authority, the broker's certificate for localhost and this end of a cable, and one of a user."""

    authority: Path
    broker: Path
    user: Path

    @classmethod
    def make(cls, directory: Path, user: str = "alice") -> "Certificates":
        authority = trustme.CA()
        made = cls(directory / "authority.pem", directory / "broker.pem", directory / f"{user}.pem")
        authority.cert_pem.write_to_path(made.authority)
        made.broker.write_bytes(_pem(authority.issue_cert("localhost", "127.0.0.1", HERE)))
        made.user.write_bytes(_pem(authority.issue_cert(f"{user}@example.com", common_name=user)))
        return made

    def settings(self, client_auth: str = "none") -> list[str]:
        return [
            f"ssl.keystore.location={self.broker}",
            f"ssl.truststore.location={self.authority}",
            f"ssl.client.auth={client_auth}",
        ]


def _pem(issued: trustme.LeafCert) -> bytes:
    """Key and chain, the key as PKCS #8, which is what Java reads."""
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    form, unencrypted = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    parts = [key.private_bytes(serialization.Encoding.PEM, form, unencrypted)]
    return b"".join(parts + [pem.bytes() for pem in issued.cert_chain_pems])


def start(directory: Path, protocol: str, *settings: str) -> BrokerProcess:
    """A running broker whose one listener speaks `protocol`."""
    process = BrokerProcess(directory, "group.initial.rebalance.delay.ms=0", *settings)
    process.settings += (f"listeners={protocol}://{process.bootstrap}",)
    process.start()
    return process


def connect(process: BrokerProcess) -> socket.socket:
    """A bare socket to the broker."""
    host, _, port = process.bootstrap.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)
