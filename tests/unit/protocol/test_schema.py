"""Schemas, error codes and the generated types."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from kio.schema.errors import ErrorCode as KioErrorCode

from protocol import codec, generate_stubs, schema
from protocol.errors import ErrorCode, KafkaError, MalformedMessage
from protocol.messages import GroupMetadataValue, OffsetCommitKey, OffsetCommitValue

ROOT = Path(schema.__file__).parent.parent


def test_the_generated_types_are_current() -> None:
    assert generate_stubs.STUB.read_text(encoding="utf-8") == generate_stubs.generate()


def test_the_generated_types_are_python() -> None:
    classes = {node.name for node in ast.parse(generate_stubs.generate()).body if isinstance(node, ast.ClassDef)}
    assert {name for name in schema.schema_names() if not name.endswith("Header")} == classes - {"Message"}


def test_versions_are_read() -> None:
    assert schema.parse_versions("none") == range(0)
    assert schema.parse_versions("3-5") == range(3, 6)
    assert schema.parse_versions("7") == range(7, 8)
    assert 30_000 in schema.parse_versions("2+")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("LogStartOffset", "log_start_offset"), ("IsrNodes", "isr_nodes"), ("V3AndBelowTopics", "v3_and_below_topics")],
)
def test_names_become_snake_case(name: str, expected: str) -> None:
    assert schema.snake_case(name) == expected


def test_importing_the_protocol_does_not_import_kafka_python() -> None:
    program = (
        "import sys, protocol.codec, protocol.headers, protocol.record_batch\n"
        "from protocol.messages import MetadataRequest\n"
        "protocol.codec.decode_request(3, 9, b'\\0\\0\\0\\0\\0')\n"
        "sys.exit('kafka' in sys.modules or 'asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_error_codes_are_kafkas() -> None:
    assert {code.name.lower(): (int(code), code.retriable) for code in ErrorCode} == {
        code.name: (int(code.value), code.retriable) for code in KioErrorCode
    }


def test_errors_carry_their_code_and_text() -> None:
    error = KafkaError(ErrorCode.NOT_COORDINATOR)
    assert (error.message, error.retriable) == (ErrorCode.NOT_COORDINATOR.text, True)
    assert KafkaError(ErrorCode.INVALID_CONFIG, "retention.ms: -5").message == "retention.ms: -5"
    assert MalformedMessage("cut").code == ErrorCode.INVALID_REQUEST
    assert all(code.text.endswith(".") for code in ErrorCode)


def test_offset_records_have_kafkas_bytes() -> None:
    key = OffsetCommitKey(group="g", topic="t", partition=3)
    assert codec.encode_data("OffsetCommitKey", 1, key) == b"\0\1g\0\1t\0\0\0\3"
    value = OffsetCommitValue(offset=5, leader_epoch=2, metadata="m", commit_timestamp=1)
    encoded = codec.encode_data("OffsetCommitValue", 3, value)
    assert encoded == bytes(7) + b"\5\0\0\0\2\0\1m" + bytes(7) + b"\1"
    assert codec.decode_data("OffsetCommitValue", 3, encoded) == value
    assert codec.encode_data("OffsetCommitValue", 4, value)[-1:] == b"\0"


def test_group_records_have_kafkas_bytes() -> None:
    member = GroupMetadataValue.MemberMetadata(
        member_id="m", client_id="c", client_host="h", rebalance_timeout=2, session_timeout=1, subscription=b"s"
    )
    value = GroupMetadataValue(protocol_type="consumer", generation=1, protocol=None, leader="m", members=[member])
    encoded = codec.encode_data("GroupMetadataValue", 3, value)
    assert encoded == (
        b"\0\x08consumer\0\0\0\1\xff\xff\0\1m" + b"\xff" * 8 + b"\0\0\0\1"
        b"\0\1m\xff\xff\0\1c\0\1h\0\0\0\2\0\0\0\1\0\0\0\1s\0\0\0\0"
    )
    assert codec.decode_data("GroupMetadataValue", 3, encoded) == value
