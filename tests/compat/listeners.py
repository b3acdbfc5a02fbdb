"""Senselog and Apache Kafka, each with a listener of every kind, and what Kafka's own tools need to reach them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.broker_process import BrokerProcess, free_port
from tests.compat.roster import KAFKA
from tests.integration.secure import Certificates

PASSWORD = "secret"  # of both users
ADMIN, GUEST = "admin", "guest"  # who may do everything, who nothing
# How a client of each listener says who it is, if it does.
LISTENERS = {
    "PLAINTEXT": "",
    "SASL_PLAINTEXT": "SCRAM-SHA-512",
    "SASL_SSL": "PLAIN",
    "SSL": "client certificate",
}
AUTHORIZER = (
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    f"super.users=User:ANONYMOUS;User:{ADMIN}",
    "ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/",
)
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Listening:
    """A broker: the address of each listener, and files of client properties by listener and group protocol."""

    addresses: dict[str, str]
    certificates: Certificates
    directory: Path

    def client(self, listener: str, protocol: str = "classic", user: str = ADMIN) -> list[str]:
        """What every tool takes to reach the listener; of GUEST, SASL_SSL alone."""
        properties = {"group.protocol": protocol, **self._properties(listener, user)}
        file = self.directory / f"{listener}-{protocol}-{user}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        return ["--bootstrap-server", self.addresses[listener], "--command-config", str(file)]

    def _properties(self, listener: str, user: str) -> dict[str, object]:
        properties: dict[str, object] = {"security.protocol": listener}
        if listener.endswith("SSL"):
            properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.certificates.authority}
        if listener == "SSL":
            properties |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": self.certificates.user}
        if listener.startswith("SASL"):
            mechanism = LISTENERS[listener]
            module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
            properties |= {
                "sasl.mechanism": mechanism,
                "sasl.jaas.config": f'{_LOGIN}.{module} required username="{user}" password="{PASSWORD}";',
            }
        return properties


def _addresses() -> tuple[dict[str, str], str]:
    """Of each listener, and as in `listeners`."""
    addresses = {name: f"localhost:{free_port()}" for name in LISTENERS}
    return addresses, ",".join(f"{name}://{address}" for name, address in addresses.items())


@contextlib.contextmanager
def senselog(directory: Path) -> Iterator[Listening]:
    """A fresh Senselog; it must also end well."""
    certificates = Certificates.make(directory, ADMIN)
    users = directory / "users"
    users.write_text(f"{ADMIN}={PASSWORD}\n{GUEST}={PASSWORD}\n")
    addresses, listeners = _addresses()
    broker = BrokerProcess(
        directory,
        "group.initial.rebalance.delay.ms=0",
        "storage.sync=os",
        f"listeners={listeners}",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
        f"sasl.plain.users.file={users}",
        *certificates.settings("requested"),
        *AUTHORIZER,
    )
    broker.bootstrap = addresses["PLAINTEXT"].replace("localhost", "127.0.0.1")
    broker.start()
    yield Listening(addresses, certificates, directory)
    assert broker.stop() == 0


@contextlib.contextmanager
def kafka(directory: Path) -> Iterator[Listening]:
    """A fresh Apache Kafka, set up alike."""
    certificates = Certificates.make(directory, ADMIN)
    addresses, listeners = _addresses()
    controller = f"localhost:{free_port()}"
    login = f'{_LOGIN}.plain.PlainLoginModule required user_{ADMIN}="{PASSWORD}" user_{GUEST}="{PASSWORD}";'
    settings = [
        f"listeners={listeners},CONTROLLER://{controller}",
        f"advertised.listeners={listeners}",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT," + ",".join(f"{name}:{name}" for name in LISTENERS),
        f"controller.quorum.bootstrap.servers={controller}",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type=PEM",
        "ssl.truststore.type=PEM",
        *certificates.settings("requested"),
        *AUTHORIZER,
    ]
    for name in ("sasl_plaintext", "sasl_ssl"):
        settings.append(f"listener.name.{name}.plain.sasl.jaas.config={login}")
        scram = f"{_LOGIN}.scram.ScramLoginModule required;"
        settings.append(f"listener.name.{name}.scram-sha-512.sasl.jaas.config={scram}")
    environment = {"KAFKA_HEAP": "-Xms256m -Xmx512m", **os.environ, "KAFKA_HOME_DIR": str(directory / "kafka")}
    port = addresses["PLAINTEXT"].rpartition(":")[2]
    up = [str(KAFKA), "up", port, *settings]
    started = subprocess.run(up, env=environment, capture_output=True, timeout=120, check=False)
    logs = (directory / "kafka").glob("*.log")
    assert started.returncode == 0, started.stderr + b"".join(log.read_bytes()[-3000:] for log in logs)
    yield Listening(addresses, certificates, directory)
    subprocess.run([str(KAFKA), "down"], env=environment, check=True)
