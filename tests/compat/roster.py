"""Who the clients are: how each one's driver starts, and what it cannot do, with the reason."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.broker_process import ROOT
from tests.compat.driver import DRIVERS

# Where scripts/compat.sh puts the releases that are not those of constraints.txt.
ENVIRONMENTS = ROOT / ".compat"
OLDER = ("confluent-kafka 2.10.1", "kafka-python 2.0.2", "kafka-python 2.3.3")
KAFKA = Path(os.environ.get("KAFKA_LAUNCHER", ROOT.parent / "shared" / "kafka" / "kafka"))

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

# Reasons that several clients share. Keys are names of capabilities: see the tests.
NO_SCRAM_USERS = {"SCRAM users": "has no call for it"}
NO_TRANSACTIONS = dict.fromkeys(
    ("transaction: commit, abort", "transaction: zombie fenced", "transaction: consume, transform, produce"),
    "no transactional producer",
)
NO_CONSUMER_PROTOCOL = {"group, consumer protocol": "knows the classic protocol only"}


@dataclass(frozen=True)
class Client:
    """One release of one client library."""

    name: str
    command: Sequence[str]
    needs: Path  # what scripts/compat.sh installs for it
    codecs: Sequence[str] = CODECS
    cannot: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it cannot be run here; None when it can."""
        if shutil.which(self.command[0]) is None:
            return f"no {self.command[0]}"
        return None if self.needs.exists() else f"no {self.needs} (scripts/compat.sh installs it)"


def _node_has_zstd() -> bool:
    probe = ["node", "-e", "process.exit(require('zlib').zstdCompress ? 0 : 1)"]
    return shutil.which("node") is not None and subprocess.run(probe, check=False).returncode == 0


def _python(name: str, driver: str, cannot: Mapping[str, str]) -> Client:
    """A release in a virtual environment of its own; the newest ones are those of the project's own environment."""
    own = ENVIRONMENTS / name.replace(" ", "-") / "bin" / "python"
    python = own if name in OLDER else Path(sys.executable)
    return Client(name, (str(python), driver), python, cannot=cannot)


CLIENTS = (
    Client(
        "kcat 1.7.1 (librdkafka 2.0.2)",
        (sys.executable, "kcat.py"),
        Path(shutil.which("kcat") or "/usr/bin/kcat"),
        cannot={
            **dict.fromkeys(
                ("topics", "configs", "groups", "delete records", "ACLs"), "has no calls of administration"
            ),
            **NO_TRANSACTIONS,
            **NO_CONSUMER_PROTOCOL,
            **NO_SCRAM_USERS,
            "SASL/OAUTHBEARER": "takes no ready token",
            **dict.fromkeys(
                ("SASL/SCRAM-SHA-256", "SASL/SCRAM-SHA-512"),
                "librdkafka before 2.6.1 repeats the client's nonce, which Kafka, too, refuses since 3.8.1",
            ),
        },
    ),
    _python("confluent-kafka 2.10.1", "confluent.py", {}),
    _python("confluent-kafka 2.16.1", "confluent.py", {}),
    _python(
        "kafka-python 2.0.2",
        "kafka_python.py",
        {
            **NO_TRANSACTIONS,
            **NO_CONSUMER_PROTOCOL,
            **NO_SCRAM_USERS,
            "idempotence": "no idempotent producer",
            "static member": "no group.instance.id",
            "read committed": "no isolation level",
            "delete records": "has no call for it",
        },
    ),
    _python("kafka-python 2.3.3", "kafka_python.py", {**NO_CONSUMER_PROTOCOL, **NO_SCRAM_USERS}),
    _python("kafka-python 3.0.12", "kafka_python.py", {**NO_CONSUMER_PROTOCOL}),
    _python(
        "aiokafka 0.14.0",
        "aiokafka_.py",
        {
            **NO_CONSUMER_PROTOCOL,
            **NO_SCRAM_USERS,
            "ACLs": "has no call for it",
            "groups": "has no call that deletes one",
        },
    ),
    Client(
        "kafkajs 2.2.4",
        ("node", "kafkajs.js"),
        DRIVERS / "node_modules" / "kafkajs",
        codecs=("none", "gzip"),
        cannot={
            **NO_CONSUMER_PROTOCOL,
            **NO_SCRAM_USERS,
            "static member": "no group.instance.id",
            **{f"codec {codec}": "its codec is a package of its own" for codec in ("snappy", "lz4", "zstd")},
        },
    ),
    Client(
        "@platformatic/kafka 1.35.0",
        ("node", "platformatic.js"),
        DRIVERS / "node_modules" / "@platformatic" / "kafka",
        cannot={
            **NO_SCRAM_USERS,
            **({} if _node_has_zstd() else {"codec zstd": "needs Node 22.15 or newer"}),
        },
    ),
    Client(
        "Java 4.3.0",
        (
            "java",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            f"{ENVIRONMENTS / 'java'}:{KAFKA.parent / 'libs'}/*",
            "JavaDriver",
        ),
        ENVIRONMENTS / "java" / "JavaDriver.class",
        environment={"JDK_JAVA_OPTIONS": "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"},
    ),
)
