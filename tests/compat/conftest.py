"""One Senselog for all clients, and an Apache Kafka beside it for what the Java tools print."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker_process import ROOT, BrokerProcess, free_port

KAFKA = Path(os.environ.get("KAFKA_LAUNCHER", ROOT.parent / "shared" / "kafka" / "kafka"))


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a fresh Senselog, set up as Kafka's test brokers are."""
    broker = BrokerProcess(tmp_path_factory.mktemp("senselog"), "group.initial.rebalance.delay.ms=0", "storage.sync=os")
    broker.start()
    yield broker.bootstrap
    assert broker.stop() == 0


@pytest.fixture(scope="session")
def kafka_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of Kafka's own tools; skips where no Kafka is at hand."""
    if not KAFKA.exists() or shutil.which("java") is None:
        pytest.skip(f"no Apache Kafka at {KAFKA} (set KAFKA_LAUNCHER) or no java")

    def run(tool: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(KAFKA), tool, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    return run


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a fresh Apache Kafka."""
    if not KAFKA.exists():
        pytest.skip(f"no Apache Kafka at {KAFKA} (set KAFKA_LAUNCHER)")
    environment = {**os.environ, "KAFKA_HOME_DIR": str(tmp_path_factory.mktemp("kafka"))}
    port = free_port()
    subprocess.run([str(KAFKA), "up", str(port)], env=environment, check=True, capture_output=True, timeout=120)
    yield f"127.0.0.1:{port}"
    subprocess.run([str(KAFKA), "down"], env=environment, check=True)
