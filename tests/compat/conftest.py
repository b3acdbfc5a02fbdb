"""One Senselog for all clients, an Apache Kafka beside it for what the Java tools print, and the table of what each client did."""

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import ApiVersionsRequest
from tests.broker_process import BrokerProcess
from tests.compat import table
from tests.compat.driver import Driver, running
from tests.compat.roster import CLIENTS, KAFKA, Client
from tests.integration.raw import RawConnection

EVENTUALLY_S = 60
# Members of the consumer protocol have their times from the broker: those that the drivers use in the classic one.
CONSUMER_PROTOCOL = [
    f"group.consumer.{bound}{key}"
    for bound in ("", "min.")
    for key in ("session.timeout.ms=6000", "heartbeat.interval.ms=500")
]
# The client that prepares and checks what a test is not about.
HOUSE = next(client for client in CLIENTS if client.name == "confluent-kafka 2.16.1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write clients x capabilities here")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "capability(name, apis=()): a row of the table; {} in the name are parameters, apis what it needs"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", CLIENTS, ids=lambda client: client.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if item.get_closest_marker("capability"):
        table.note(_capability(item), item.callspec.params["client"].name, report)  # type: ignore[attr-defined]
    for tool in (value for name, value in item.user_properties if name == "tool"):
        table.note(f"`{tool}`", item.callspec.params["listener"], report)  # type: ignore[attr-defined]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("--table"):
        table.write(path)


def _capability(item: Any) -> str:
    return str(item.get_closest_marker("capability").args[0].format(**item.callspec.params))


@pytest.fixture(autouse=True)
def _possible(request: pytest.FixtureRequest) -> None:
    """Skips, with the reason, what the client cannot do, what the broker cannot yet, and a client that is not here."""
    mark = request.node.get_closest_marker("capability")
    if mark is None:
        return
    client, capability = request.getfixturevalue("client"), _capability(request.node)
    if capability in client.cannot:
        pytest.skip(f"{table.CANNOT}: {client.cannot[capability]}")
    if missing := client.missing():
        pytest.skip(f"{table.ABSENT}: {missing}")
    if lacking := sorted(set(mark.kwargs.get("apis", ())) - request.getfixturevalue("advertised")):
        pytest.skip(f"{table.NOT_YET}: the broker does not advertise API {', '.join(map(str, lacking))}")


@contextlib.contextmanager
def senselog(directory: Path, *settings: str) -> Iterator[str]:
    """HOST:PORT of a fresh Senselog, set up as Kafka's test brokers are; it must also end well."""
    broker = BrokerProcess(directory, "group.initial.rebalance.delay.ms=0", "storage.sync=os", *settings)
    broker.start()
    yield broker.bootstrap
    assert broker.stop() == 0


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The broker of all clients."""
    with senselog(tmp_path_factory.mktemp("senselog"), *CONSUMER_PROTOCOL) as address:
        yield address


@pytest.fixture(scope="session")
def advertised(bootstrap: str) -> set[int]:
    """The keys of the APIs that the broker advertises."""
    with RawConnection(bootstrap) as connection:
        answer = connection.call(18, 0, ApiVersionsRequest())
    return {api.api_key for api in answer.api_keys}


@pytest.fixture
def start(client: Client, bootstrap: str) -> Iterator[Callable[[], Driver]]:
    """Starts processes of the client, connected to the broker; killed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start() -> Driver:
            driver = stack.enter_context(running(client.command, client.environment))
            driver.connect(bootstrap=bootstrap, security={})
            return driver

        yield start


@pytest.fixture(scope="session")
def house(bootstrap: str) -> Iterator[Driver]:
    """A client that prepares and checks what the test is not about."""
    with running(HOUSE.command, HOUSE.environment) as driver:
        driver.connect(bootstrap=bootstrap, security={})
        driver.producer(name="house")
        yield driver


@pytest.fixture
def topic(house: Driver) -> str:
    """A new topic of one partition."""
    name = fresh("compat")
    house.create_topic(topic=name, partitions=1)
    return name


def fresh(name: str) -> str:
    """A topic, group or transactional id nobody has used."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def eventually(what: str, condition: Callable[[], Any], timeout_s: float = EVENTUALLY_S) -> None:
    """Waits for a condition; fails naming it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def kafka_tool(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of Kafka's own tools; skips where no Kafka is at hand."""
    if not KAFKA.exists() or shutil.which("java") is None:
        pytest.skip(f"no Apache Kafka at {KAFKA} (set KAFKA_LAUNCHER) or no java")
    classes = tmp_path_factory.mktemp("java") / "classes.jsa"

    def run(tool: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        # Hundreds of short lives: no time for a good compiler, and the first one leaves its loaded classes to the others.
        share = "SharedArchiveFile" if classes.exists() else "ArchiveClassesAtExit"
        options = f"-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:disable -XX:{share}={classes}"
        return subprocess.run(
            [str(KAFKA), tool, *arguments],
            input=stdin,
            env={**os.environ, "JDK_JAVA_OPTIONS": options},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
