"""What the indexer gets to read: committed records, and nothing that is open, aborted or a marker."""

import random

from broker.search.feed import WorkerFeed
from protocol.record_batch import TRANSACTIONAL, Record, build_batch, parse_batches
from storage.log import PartitionLog
from tests.unit.broker.admin import Admin
from vector.prepare import Extraction, stretches

EXTRACTION = Extraction("value", "truncate", 1, texts=True, split=lambda text, _: ([text], True))


def append(log: PartitionLog, producer_id: int, sequence: int, value: bytes, *, transactional: bool) -> None:
    data = memoryview(
        build_batch(
            [Record(0, 1000, None, value)],
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=sequence,
            attributes=TRANSACTIONAL if transactional else 0,
        )
    )
    log.append(data, parse_batches(data), now_ms=1000)


async def test_the_indexer_never_sees_aborted_open_or_control_records() -> None:
    """Random interleavings of transactions and plain writes: every committed text once, in order, and no other."""
    for seed in range(30):
        chance = random.Random(seed)
        admin = Admin()
        topic = admin.topics.create("t", 1, {"vector.enabled": "true"})
        admin.settle()
        log = topic.partitions[0]
        feed = WorkerFeed(admin.topics, "model")
        sequences = dict.fromkeys(range(4), 0)
        texts: list[tuple[int, bytes, int]] = []
        ends: list[tuple[int, int, bool]] = []
        for number in range(40):
            producer_id = chance.randrange(4)
            if chance.random() < 0.3 and producer_id in log.producers.open_transactions:
                commit = chance.random() < 0.5
                ends.append((log.log_end_offset, producer_id, commit))
                log.append_marker(producer_id, 0, 0, commit=commit, now_ms=1000)
            else:
                texts.append((log.log_end_offset, b"text %d" % number, producer_id))
                append(log, producer_id, sequences[producer_id], texts[-1][1], transactional=producer_id > 0)
                sequences[producer_id] += 1
        admin.logs.commit()
        admin.settle()
        expected = [text.decode() for offset, text, producer_id in texts if committed(log, offset, producer_id, ends)]
        offset, found = 0, []
        while offset < log.last_stable_offset:
            limit = chance.choice([1, 200, 1000])
            batches, next_offset, _ = await feed.read((topic.topic_id, 0, offset, limit))
            for stretch in stretches(memoryview(batches), offset, next_offset, EXTRACTION):
                found += list(stretch.texts.values())
            assert next_offset > offset
            offset = next_offset
        assert (seed, found) == (seed, expected)


def committed(log: PartitionLog, offset: int, producer_id: int, ends: list[tuple[int, int, bool]]) -> bool:
    if offset >= log.last_stable_offset:
        return False
    return producer_id == 0 or next(commit for end, one, commit in ends if one == producer_id and end > offset)
