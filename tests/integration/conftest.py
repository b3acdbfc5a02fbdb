"""A running broker for tests over sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess
from tests.integration.raw import RawConnection


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker per test module, defaults but for what would only make tests slow."""
    directory: Path = tmp_path_factory.mktemp("broker")
    process = BrokerProcess(directory, "group.initial.rebalance.delay.ms=0")
    process.start()
    yield process
    process.end()


@pytest.fixture
def connection(broker: BrokerProcess) -> Iterator[RawConnection]:
    """A connection of one's own."""
    with RawConnection(broker.bootstrap) as raw:
        yield raw
