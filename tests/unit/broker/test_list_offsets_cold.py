"""ListOffsets by time when the disk has to be waited for: a thread does, not the loop."""

from typing import Any

import pytest

from protocol.api_keys import ApiKey
from protocol.messages import ListOffsetsRequest
from tests.simulated_storage import SimulatedFile
from tests.unit.broker.core import Answer, Core


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    """Twenty records, a second apart, in a segment whose indexes nobody has asked for since the start; a cold disk."""
    core = Core()
    topic = core.topic()
    for number in range(1, 21):
        core.append(topic, b"%d" % number + b"x" * 500, timestamp_ms=number * 1000)
    core.logs.checkpoint()
    core.settle()
    topic.partitions[0].seal_last_segment()
    core.append(topic, b"last", timestamp_ms=1)
    core.logs.checkpoint()
    core.settle()
    core.restart()
    core.disk.cold = True
    return core


def ask(core: Core, timestamp: int, topic: str = "t") -> Answer:
    partition = ListOffsetsRequest.ListOffsetsPartition(partition_index=0, current_leader_epoch=-1, timestamp=timestamp)
    topics = [ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[partition])]
    request = ListOffsetsRequest(replica_id=-1, isolation_level=0, topics=topics)
    return core.request(ApiKey.LIST_OFFSETS, 7, request)


def found(answer: Answer) -> Any:
    return answer.value.topics[0].partitions[0]


def test_the_loop_waits_neither_for_indexes_nor_for_pages(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the index files are read in a thread, then the pages that they name; the answer is the same."""
    loaded: list[tuple[int, int]] = []
    monkeypatch.setattr(SimulatedFile, "load", lambda self, position, size: loaded.append((position, size)))
    answer = ask(core, 11_000)
    assert not answer.there
    assert loaded == []
    core.read_ahead.finish()
    assert found(answer).offset == 10
    assert len(loaded) == 3
    assert loaded[-1][0] > 0
    assert loaded[-1][1] > 1000
    core.disk.cold = False
    assert found(ask(core, 11_000)).offset == 10  # at once


def test_the_largest_time_and_what_is_not_there(core: Core) -> None:
    largest = ask(core, -3)
    while not largest.there:
        core.read_ahead.finish()
    assert found(largest).timestamp == 20_000
    beyond = ask(core, 20_001)
    assert found(beyond).offset == -1
    assert found(ask(core, 0, "nope")).error_code == 3


def test_a_topic_deleted_meanwhile_is_unknown(core: Core) -> None:
    answer = ask(core, 11_000)
    core.topics.delete("t")
    core.settle()
    while not answer.there:
        core.read_ahead.finish()
    assert found(answer).error_code == 3
