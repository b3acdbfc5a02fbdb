"""Produce: Kafka's codes in Kafka's order (recorded by the oracle), durability, and what happens to a whole request."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.context import CloseConnection
from broker.record_checks import WALKED_RECORDS_MAX
from protocol.compression import Compression
from protocol.crc import crc32c
from protocol.record_batch import Record, build_batch, parse_batches
from tests.unit.broker.core import Core, batch, batches_in

PLACES = {"base_offset": (0, ">q"), "batch_length": (8, ">i"), "magic": (16, ">b"), "record_count": (57, ">i")}


def damaged(data: bytes, **fields: int) -> bytes:
    """Header fields replaced; the checksum is made right again unless it is what is wrong."""
    changed = bytearray(data)
    for name, value in fields.items():
        if name == "attributes":
            struct.pack_into(">h", changed, 21, value)
        elif name != "crc":
            struct.pack_into(PLACES[name][1], changed, PLACES[name][0], value)
    struct.pack_into(">I", changed, 17, fields.get("crc", crc32c(changed[21:])))
    return bytes(changed)


GOOD = batch(b"a", b"b")


@pytest.fixture
def core() -> Core:
    return Core(storage_sync="always")


def test_offsets_are_given_in_order_and_records_come_back(core: Core) -> None:
    core.topic()
    assert [core.produced("t", batch(b"a", b"b")).base_offset for _ in range(3)] == [0, 2, 4]
    found = core.fetch(("t", 0, 0)).value.responses[0].partitions[0]
    assert batches_in(found.records) == [(0, 2), (2, 2), (4, 2)]


def test_an_ack_waits_for_the_sync_and_readers_see_nothing_before(core: Core) -> None:
    topic = core.topic()
    answer = core.produce(("t", 0, GOOD))
    assert not answer.there
    assert topic.partitions[0].high_watermark == 0
    core.settle()
    assert answer.value.responses[0].partition_responses[0].base_offset == 0
    assert topic.partitions[0].high_watermark == 2


def test_without_acks_there_is_no_response_but_the_next_request_waits(core: Core) -> None:
    core.topic()
    answer = core.produce(("t", 0, GOOD), acks=0)
    assert not answer.there
    core.settle()
    assert answer.value is None


def test_a_failure_without_acks_closes_the_connection(core: Core) -> None:
    with pytest.raises(CloseConnection):
        core.produce(("nowhere", 0, GOOD), acks=0)


@pytest.mark.parametrize(
    ("records", "version", "code", "log_start_offset"),
    [
        (None, 9, 87, -1),
        (b"", 9, 87, -1),
        (GOOD[:40], 9, 87, -1),
        (GOOD + GOOD, 9, 87, -1),
        (damaged(GOOD, magic=1), 9, 87, -1),
        (damaged(GOOD, magic=3), 9, 2, -1),
        (damaged(GOOD, crc=1), 9, 2, -1),
        (damaged(GOOD, batch_length=0), 9, 2, -1),
        (damaged(GOOD, base_offset=5), 9, 87, 0),
        (damaged(GOOD, record_count=3), 9, 87, 0),
        (damaged(GOOD, attributes=0x20), 9, 87, 0),
        (damaged(GOOD, attributes=0x10), 9, 53, -1),
        (damaged(GOOD, attributes=5), 9, -1, 0),
        (batch(b"x" * 3000), 9, 10, -1),
        (batch(b"a", codec=Compression.ZSTD), 6, 76, -1),
        (batch(b"a", timestamp_ms=1_700_000_000_000 + 7_200_000), 9, 32, 0),
    ],
)
def test_refusals_have_kafkas_codes(
    core: Core, records: bytes | None, version: int, code: int, log_start_offset: int
) -> None:
    topic = core.topic(max_message_bytes="2000")
    answer = core.produced("t", records, version=version)
    assert (answer.error_code, answer.base_offset, answer.log_start_offset) == (code, -1, log_start_offset)
    assert topic.partitions[0].log_end_offset == 0
    assert core.services.metrics.errors[0, code] == 1


def test_what_is_not_there(core: Core) -> None:
    topic = core.topic()
    assert core.produced("nowhere", GOOD).error_code == 3
    assert core.produced("t", GOOD, partition=1).error_code == 3
    assert core.produced("t", GOOD, partition=-1).error_code == 3
    assert core.produced(b"\7" * 16, GOOD, version=13).error_code == 100
    assert core.produced(topic.topic_id, GOOD, version=13).error_code == 0
    assert core.topics.get("nowhere") is None


def test_acks_and_internal_topics_are_checked_after_the_batch(core: Core) -> None:
    core.topic()
    core.topics.ensure_internal("__consumer_offsets", 1, {})
    assert core.produced("t", GOOD, acks=2).error_code == 21
    assert core.produced("t", b"", acks=2).error_code == 87
    assert core.produced("t", damaged(GOOD, crc=1), acks=2).error_code == 21
    assert core.produced("__consumer_offsets", GOOD).error_code == 17
    assert core.produced("__consumer_offsets", GOOD, client_id="__admin_client").error_code == 0


def test_one_bad_partition_spoils_no_other(core: Core) -> None:
    core.topic("t", 2)
    answer = core.produce(("t", 0, damaged(GOOD, crc=1)), ("t", 1, GOOD), ("nowhere", 0, GOOD))
    core.settle()
    codes = [row.error_code for topic in answer.value.responses for row in topic.partition_responses]
    assert codes == [2, 0, 3]


@pytest.mark.parametrize("bad", [damaged(GOOD, magic=3), damaged(GOOD, attributes=0x10)])
def test_what_kafka_refuses_as_a_whole_leaves_nothing_behind(core: Core, bad: bytes) -> None:
    topic = core.topic("t", 2)
    answer = core.produce(("t", 0, GOOD), ("t", 1, bad))
    codes = {row.error_code for row in answer.value.responses[0].partition_responses}
    assert len(codes) == 1
    assert 0 not in codes
    assert [log.log_end_offset for log in topic.partitions] == [0, 0]


def test_of_a_partition_named_twice_the_last_data_counts(core: Core) -> None:
    core.topic()
    answer = core.produce(("t", 0, batch(b"a")), ("t", 0, batch(b"b", b"c")))
    core.settle()
    assert len(answer.value.responses) == 1
    assert len(answer.value.responses[0].partition_responses) == 1
    assert core.topics.get("t").partitions[0].log_end_offset == 2  # type: ignore[union-attr]


def test_an_idempotent_repeat_has_the_first_offsets(core: Core) -> None:
    core.topic()
    sent = batch(b"a", b"b", producer_id=7, producer_epoch=0, base_sequence=0)
    assert [core.produced("t", sent).base_offset for _ in range(2)] == [0, 0]
    assert core.produced("t", batch(b"c", producer_id=7, producer_epoch=0, base_sequence=9)).error_code == 45


def test_records_out_of_time_or_without_key_are_named(core: Core) -> None:
    core.topic("t")
    core.topic("compacted", cleanup_policy="compact")
    now = 1_700_000_000_000
    late = [Record(0, now, b"k", b"1"), Record(1, now + 9_000_000, b"k", b"2"), Record(2, now, None, b"3")]
    answer = core.produced("t", bytes(build_batch(late)))
    assert (answer.error_code, [row.batch_index for row in answer.record_errors]) == (32, [1])
    answer = core.produced("compacted", bytes(build_batch([late[0], late[2]])))
    assert (answer.error_code, [row.batch_index for row in answer.record_errors]) == (87, [1])
    assert core.produced("compacted", batch(None, key=b"k")).error_code == 0


def test_the_topic_says_whose_time_counts(core: Core) -> None:
    core.topic("theirs")
    core.topic("ours", message_timestamp_type="LogAppendTime")
    assert core.produced("theirs", damaged(GOOD, attributes=8)).error_code == 0
    stored = parse_batches(core.fetch(("theirs", 0, 0)).value.responses[0].partitions[0].records)
    assert not stored[0].log_append_time
    assert core.produced("ours", GOOD).log_append_time_ms == core.machine.clock.now_ms
    answer = core.produced("ours", damaged(GOOD, attributes=8))
    assert (answer.error_code, len(answer.record_errors)) == (32, 2)


def test_a_storage_failure_is_told(core: Core) -> None:
    core.topic()
    answer = core.produce(("t", 0, GOOD))
    core.logs._wal.fail(OSError("gone"))  # type: ignore[arg-type]
    assert answer.value.responses[0].partition_responses[0].error_code == 56


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=WALKED_RECORDS_MAX), st.data())
def test_small_batches_are_walked(values: list[bytes | None], data: Any) -> None:
    core = Core()
    core.topic()
    sent = batch(*values)
    assert core.produced("t", sent).error_code == 0
    count = data.draw(st.integers(1, WALKED_RECORDS_MAX).filter(lambda number: number != len(values)))
    wrong = bytearray(damaged(sent, record_count=count))
    struct.pack_into(">i", wrong, 23, count - 1)
    assert core.produced("t", damaged(bytes(wrong))).error_code == 87


@pytest.mark.parametrize("codec", list(Compression)[1:])
def test_small_compressed_batches_are_walked(core: Core, codec: Compression) -> None:
    core.topic()
    records = [Record(0, 1_700_000_000_000 + number, b"k", b"value %d" % number) for number in range(5)]
    good = bytes(build_batch(records, codec=codec))
    cut = bytearray(good[:-4])
    struct.pack_into(">i", cut, 8, len(cut) - 12)
    fewer = bytearray(damaged(good, record_count=4))
    struct.pack_into(">i", fewer, 23, 3)
    assert core.produced("t", damaged(bytes(cut))).error_code == -1  # Kafka's own answer
    assert core.produced("t", damaged(bytes(fewer))).error_code == 87
    assert core.produced("t", good).error_code == 0


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.LZ4])
def test_the_header_gets_the_largest_time_of_its_records(core: Core, codec: Compression) -> None:
    core.topic()
    now = 1_700_000_000_000
    wrong = bytearray(build_batch([Record(0, now, None, b"a"), Record(0, now + 7, None, b"b")], codec=codec))
    struct.pack_into(">q", wrong, 35, now + 1_000)
    assert core.produced("t", damaged(bytes(wrong))).error_code == 0
    stored = parse_batches(core.fetch(("t", 0, 0)).value.responses[0].partitions[0].records)
    assert stored[0].max_timestamp == now + 7


def test_a_base_time_out_of_range_is_found_whatever_the_header_says_of_the_largest(core: Core) -> None:
    core.topic()
    late = bytearray(batch(*[b"value %d" % number for number in range(100)]))
    struct.pack_into(">q", late, 27, 2**63 - 1)
    assert core.produced("t", damaged(bytes(late))).error_code == 32


def test_a_length_that_never_ends_costs_nothing(core: Core) -> None:
    core.topic(max_message_bytes="10000000")
    endless = bytearray(batch(b"\xff" * 900_000))
    endless[61:] = b"\xff" * (len(endless) - 61)
    assert core.produced("t", damaged(bytes(endless))).error_code == -1  # as in Kafka: no int32
