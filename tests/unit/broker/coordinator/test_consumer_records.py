"""Records of consumer groups (KIP-848) are Kafka's, byte for byte."""

import pytest

from broker.coordinator.consumer_member import ClassicSupport, CurrentAssignment, MemberAccount, MemberState
from broker.coordinator.consumer_records import (
    CurrentRecord,
    GroupEpoch,
    GroupEpochRecord,
    MemberRecord,
    RegexRecord,
    ResolvedRegex,
    TargetEpoch,
    TargetEpochRecord,
    TargetRecord,
)
from broker.coordinator.records import decode_record, encode_record

# Read from __consumer_offsets of Apache Kafka 4.3.0: a static member of the classic protocol, then a member with a pattern.
KAFKAS = [
    (
        ("000500016700286f6c642d63303961303836382d653861622d343033302d626633382d363832326438623537303066"),
        (
            "0000046f6c640002610b2f3132372e302e302e3102026b01000493e00001003301000027100213636f6f7065726174697665"
            "2d737469636b791800030000000100016b0000000000000000ffffffff00000000"
        ),
        MemberRecord(
            group_id="g",
            member_id="old-c09a0868-e8ab-4030-bf38-6822d8b5700f",
            value=MemberAccount(
                group_instance_id="old",
                rack_id=None,
                client_id="a",
                client_host="/127.0.0.1",
                topic_names=frozenset({"k"}),
                topic_regex="",
                rebalance_timeout_ms=300000,
                server_assignor=None,
                classic=ClassicSupport(
                    session_timeout_ms=10000,
                    protocols=(
                        (
                            "cooperative-sticky",
                            b"\x00\x03\x00\x00\x00\x01\x00\x01k\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00",
                        ),
                    ),
                ),
            ),
        ),
    ),
    (
        "000500016700164f764f5659743054546d656646712b3252516d476367",
        "0000000002620b2f3132372e302e302e310107285e6b2e2a29000493e00672616e676501000100",
        MemberRecord(
            group_id="g",
            member_id="OvOVYt0TTmefFq+2RQmGcg",
            value=MemberAccount(
                group_instance_id=None,
                rack_id=None,
                client_id="b",
                client_host="/127.0.0.1",
                topic_names=frozenset(),
                topic_regex="(^k.*)",
                rebalance_timeout_ms=300000,
                server_assignor="range",
                classic=None,
            ),
        ),
    ),
    (
        "0003000167",
        "0000000000010100084535bfcda9769053",
        GroupEpochRecord(group_id="g", value=GroupEpoch(epoch=1, metadata_hash=4987103052415012947)),
    ),
    (
        ("000700016700286f6c642d63303961303836382d653861622d343033302d626633382d363832326438623537303066"),
        "000002273dc234522d4b2c9b67f1e571ea4fbe040000000000000001000000020000",
        TargetRecord(
            group_id="g",
            member_id="old-c09a0868-e8ab-4030-bf38-6822d8b5700f",
            value={b"'=\xc24R-K,\x9bg\xf1\xe5q\xeaO\xbe": frozenset({0, 1, 2})},
        ),
    ),
    (
        "0006000167",
        "000000000002010008000001a211c4037e",
        TargetEpochRecord(group_id="g", value=TargetEpoch(epoch=2, computed_ms=1795594388350)),
    ),
    (
        ("000800016700286f6c642d63303961303836382d653861622d343033302d626633382d363832326438623537303066"),
        (
            "000000000001000000010002273dc234522d4b2c9b67f1e571ea4fbe0400000000000000010000000201000d040000000100"
            "000001000000010100"
        ),
        CurrentRecord(
            group_id="g",
            member_id="old-c09a0868-e8ab-4030-bf38-6822d8b5700f",
            value=CurrentAssignment(
                epoch=1,
                previous_epoch=1,
                state=MemberState.STABLE,
                assigned={b"'=\xc24R-K,\x9bg\xf1\xe5q\xeaO\xbe": {0: 1, 1: 1, 2: 1}},
                revoking={},
            ),
        ),
    ),
    (
        "00100001670006285e6b2e2a29",
        "000002026b000000000000005c000001a211c3f01f00",
        RegexRecord(
            group_id="g",
            regex="(^k.*)",
            value=ResolvedRegex(topics=frozenset({"k"}), version=92, resolved_ms=1795594383391),
        ),
    ),
]


@pytest.mark.parametrize(("key", "value", "record"), KAFKAS, ids=lambda case: type(case).__name__)
def test_kafkas_records_are_read_and_written(key, value, record) -> None:
    """A null struct in a tagged field, epochs of assignments, time stamps: as Kafka 4.3 writes them; a null value deletes."""
    key, value = bytes.fromhex(key), bytes.fromhex(value)
    assert decode_record(key, value) == record
    assert encode_record(record) == (key, value)
    deletion = decode_record(key, None)
    assert deletion.value is None
    assert encode_record(deletion) == (key, None)


def test_records_of_before_assignment_epochs_are_read() -> None:
    """Kafka before 4.2 wrote no epochs (KIP-1251): the member's own stands for them, 0 for one that is away."""
    key = bytes.fromhex("0008000167000161")
    for epoch, expected in ((7, 7), (-2, 0)):
        value = (
            bytes(2)
            + epoch.to_bytes(4, signed=True)
            + bytes(5)
            + b"\2"
            + b"t" * 16
            + b"\2"
            + bytes(4)
            + bytes(1)
            + b"\1\0"
        )
        assert decode_record(key, value).value.assigned == {b"t" * 16: {0: expected}}


def test_the_topics_of_kafka_before_4_1_are_left_alone() -> None:
    """Key version 4 (subscription metadata) says nothing that is needed."""
    assert decode_record(bytes.fromhex("0004000167"), bytes.fromhex("00000100")) is None
