"""The composition root, as far as it decides anything itself."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from broker.app import Broker
from broker.config import Config


def test_one_failure_is_not_the_end_of_maintenance() -> None:
    """Retention, checkpoints by time and the recovery from a full disk all hang on the next call."""

    def fail() -> None:
        raise OSError("no statistics of the file system")

    async def maintain() -> bool:
        broker: Any = Broker(Config())
        broker.services = SimpleNamespace(logs=SimpleNamespace(maintain=fail))
        with pytest.raises(OSError, match="no statistics"):
            broker._maintain()
        due = broker._maintenance is not None
        broker._maintenance.cancel()
        return due

    assert asyncio.run(maintain())
