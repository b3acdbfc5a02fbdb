"""Records of `__consumer_offsets` are Kafka's, byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from broker.coordinator.group_metadata import GroupMetadata, MemberMetadata
from broker.coordinator.records import CommittedOffset, GroupRecord, OffsetRecord, decode_record, encode_record
from broker.journal import string_hash

MEMBER_ID = "instance-1-3a084c33-10c7-49c0-b727-ea30d21af22c"
# Read from __consumer_offsets of Apache Kafka 4.3.0.
KAFKAS = [
    (
        "00020006676f6c64656e",
        "0003000000000000ffffffff000001a20b70294900000000",
        GroupRecord("golden", GroupMetadata(0, None, None, None, 1795488229705, ())),
    ),
    (
        "00020006676f6c64656e",
        (
            "00030008636f6e73756d657200000001000572616e6765002f696e7374616e63652d312d33613038346333332d313063372d343963302d62"
            "3732372d656133306432316166323263000001a20b70297700000001002f696e7374616e63652d312d33613038346333332d313063372d34"
            "3963302d623732372d656133306432316166323263000a696e7374616e63652d310006636c69656e74000a2f3132372e302e302e31000493"
            "e00000afc8000000170003000000010001740000000000000000ffffffff0000000000190000000000010001740000000200000000000000"
            "0100000000"
        ),
        GroupRecord(
            "golden",
            GroupMetadata(
                generation_id=1,
                protocol_type="consumer",
                protocol_name="range",
                leader_id=MEMBER_ID,
                state_timestamp_ms=1795488229751,
                members=(
                    MemberMetadata(
                        member_id=MEMBER_ID,
                        group_instance_id="instance-1",
                        client_id="client",
                        client_host="/127.0.0.1",
                        rebalance_timeout_ms=300_000,
                        session_timeout_ms=45_000,
                        subscription=bytes.fromhex("0003000000010001740000000000000000ffffffff0000"),
                        assignment=bytes.fromhex("00000000000100017400000002000000000000000100000000"),
                    ),
                ),
            ),
        ),
    ),
    (
        "00010006676f6c64656e00017400000000",
        "0004000000000000002a00000003066e6f746500000001a20b702a650100100e36bbba66dc4436974308b719575575",
        OffsetRecord(
            "golden",
            "t",
            0,
            CommittedOffset(
                offset=42,
                leader_epoch=3,
                metadata="note\0",
                commit_timestamp_ms=1795488229989,
                topic_id=bytes.fromhex("0e36bbba66dc4436974308b719575575"),
            ),
        ),
    ),
    ("0001000673696d706c6500017400000001", None, OffsetRecord("simple", "t", 1, None)),
    ("0002000673696d706c65", None, GroupRecord("simple", None)),
]


def test_kafkas_own_records() -> None:
    """What Kafka wrote is read, and written again as the same bytes."""
    for key, value, record in KAFKAS:
        data = bytes.fromhex(key), None if value is None else bytes.fromhex(value)
        assert decode_record(*data) == record
        assert encode_record(record) == data


COMMITTED = st.builds(
    CommittedOffset,
    offset=st.integers(-(2**63), 2**63 - 1),
    leader_epoch=st.integers(-1, 2**31 - 1),
    metadata=st.text(max_size=50),
    commit_timestamp_ms=st.integers(0, 2**60),
    topic_id=st.binary(min_size=16, max_size=16),
)


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 2**31 - 1), st.none() | COMMITTED)
def test_offsets_round_trip(group_id, topic, partition, committed) -> None:
    """Every commit and deletion comes back as it was written."""
    record = OffsetRecord(group_id, topic, partition, committed)
    assert decode_record(*encode_record(record)) == record


def test_own_retention_is_kept() -> None:
    """An offset with a retention of its own keeps it, at the price of leader epoch and topic id, as in Kafka."""
    committed = CommittedOffset(1, 5, "m", 100, 900, b"t" * 16)
    read = decode_record(*encode_record(OffsetRecord("g", "t", 0, committed)))
    assert isinstance(read, OffsetRecord)
    assert read.value == CommittedOffset(1, -1, "m", 100, 900)


def test_other_kinds_of_keys_are_left_alone() -> None:
    """Records of share and streams groups and whatever comes later are skipped, not misread."""
    assert decode_record(b"\x00\x0b\x00\x01g", b"\x00\x00") is None
    assert decode_record(b"", b"") is None


def test_the_partition_of_a_group_is_javas() -> None:
    """String.hashCode of Java, also for surrogate pairs and overflow."""
    assert string_hash("") == 0
    assert string_hash("golden") == -1240337143
    assert string_hash("polygenelubricants") == -(2**31)
    assert string_hash("\U0001f600") == 1772899
