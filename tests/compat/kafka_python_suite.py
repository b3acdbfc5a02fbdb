"""A pytest plugin for kafka-python's own tests of SASL and TLS, which start their brokers themselves: what they start is a Senselog.

Loaded by `scripts/suites.sh` into that suite, whose `KafkaFixture` it changes; it runs with that suite's packages.
"""

import subprocess
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from test.integration.fixtures import KafkaFixture, client_params

REPOSITORY = Path(__file__).resolve().parents[2]
SENSELOG = [str(REPOSITORY / ".venv" / "bin" / "python"), "-m", "senselog"]


class Child:
    """What the fixture wants of a process."""

    def __init__(self, directory: Path, settings: dict[str, object]) -> None:
        command = [*SENSELOG, "serve", "--data-dir", str(directory / "senselog"), "--http", "127.0.0.1:0"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        self._log = directory / "senselog.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready.startswith("senselog ready"), self._log.read_text()

    def dump_logs(self) -> None:
        print(self._log.read_text())

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(10) == 0


def start(self: Any) -> None:
    """In place of Kafka, on the fixture's port, with the listener, certificate and user that it wants."""
    if self.running:
        return
    directory = Path(self.tmp_dir.strpath)
    settings: dict[str, object] = {
        "node.id": self.broker_id,
        "listeners": f"{self.transport}://{self.host}:{self.port}",
        "group.initial.rebalance.delay.ms": 0,
    }
    if self.ssl_enabled:  # keytool's stores, which have been PKCS #12 since Java 9
        for store in ("keystore", "truststore"):
            file = f"{self.ssl_dir}/kafka.server.{store}.jks"
            settings |= {
                f"ssl.{store}.type": "PKCS12",
                f"ssl.{store}.location": file,
                f"ssl.{store}.password": "foobar",
            }
    if self.sasl_enabled:
        settings["sasl.enabled.mechanisms"] = self.sasl_mechanism
        secret = directory / "secret"
        if self.sasl_mechanism == "PLAIN":
            secret.write_text(f"{self.broker_user}={self.broker_password}\n")
            settings["sasl.plain.users.file"] = secret
        else:
            secret.write_text(self.broker_password)
            command = [*SENSELOG, "user", "set", self.broker_user, "--mechanism", self.sasl_mechanism]
            files = ["--password-file", str(secret), "--data-dir", str(directory / "senselog")]
            subprocess.run([*command, *files], cwd=REPOSITORY, check=True)
    self.child = Child(directory, settings)
    self.running = True


def get_topic_names(self: Any) -> list[str]:
    """Kafka's own tool would be asked otherwise."""
    admin = KafkaAdminClient(**client_params(self, "names"))
    try:
        return list(admin.list_topics())
    finally:
        admin.close()


KafkaFixture.start = start
KafkaFixture.get_topic_names = get_topic_names
KafkaFixture._format_log_dirs = lambda self: True
