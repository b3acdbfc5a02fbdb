"""Every API in every version: our codec against itself, and against kafka-python's and kio's."""

import dataclasses
import datetime as dt
import enum
import importlib
import io
import pkgutil
import uuid
from functools import cache
from typing import Any

import kafka.protocol
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka.protocol.api_message import ApiMessage
from kio.serial import entity_reader, entity_writer

from protocol import codec, schema
from protocol.api_keys import ApiKey
from protocol.messages import Message, message_class
from tests.unit.protocol.generated import BODIES, BODY_IDS, decode, encode, messages

KIO_LACKS = {ApiKey.VECTOR_SEARCH}
KAFKA_PYTHON_LACKS = {ApiKey.VECTOR_SEARCH, ApiKey.CONSUMER_GROUP_HEARTBEAT, ApiKey.CONSUMER_GROUP_DESCRIBE}


# ---- kafka-python ----


@cache
def kafka_python_classes() -> dict[str, Any]:
    for module in pkgutil.walk_packages(kafka.protocol.__path__, "kafka.protocol."):
        if ".old" not in module.name and "generate" not in module.name:
            importlib.import_module(module.name)
    found: dict[str, Any] = {}
    pending: list[Any] = [ApiMessage]
    while pending:
        for cls in pending.pop().__subclasses__():
            pending.append(cls)
            if "_v" not in cls.__name__:
                found[cls.__name__] = cls
    return found


KAFKA_PYTHON_NAMES = {
    # kafka-python patches these names in its copies of the schemas.
    "cluster_authorized_operations": "authorized_operations",
    "topic_authorized_operations": "authorized_operations",
}


def assert_same_as_kafka_python(struct: schema.Struct, version: int, ours: Any, theirs: Any) -> None:
    for field in struct.fields:
        if version not in field.versions:
            continue
        their_name = field.name if hasattr(theirs, field.name) else KAFKA_PYTHON_NAMES[field.name]
        ours_value, their_value = getattr(ours, field.name), getattr(theirs, their_name)
        if "authorized_operations" in field.name:
            continue
        if field.struct and ours_value is not None:
            pairs = zip(ours_value, their_value, strict=True) if field.array else ((ours_value, their_value),)
            for our_element, their_element in pairs:
                assert_same_as_kafka_python(field.struct, version, our_element, their_element)
        else:
            assert plain(their_value) == plain(ours_value), field.name


def plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, memoryview):
        return bytes(value)
    return [plain(element) for element in value] if isinstance(value, list | tuple) else value


def assert_kafka_python_agrees(key: ApiKey, version: int, name: str, message: Any, encoded: bytes) -> None:
    if key in KAFKA_PYTHON_LACKS:
        return
    if name == "ApiVersionsResponse" and message.error_code:
        return  # kafka-python takes any error for UNSUPPORTED_VERSION and reads version 0
    theirs = kafka_python_classes()[name].decode(encoded, version=version)
    assert_same_as_kafka_python(schema.load(name).root, version, message, theirs)
    theirs._header = None  # decode() leaves it unset, encode() asks for it
    assert theirs.encode(version=version) == encoded


# ---- kio ----


def kio_plain(value: Any) -> Any:
    """kio's rich types as what is on the wire."""
    if isinstance(value, enum.Enum):
        return int(value.value)
    if isinstance(value, dt.timedelta):
        return round(value.total_seconds() * 1000)
    if isinstance(value, dt.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, uuid.UUID):
        return value.bytes
    return list(map(kio_plain, value)) if isinstance(value, list | tuple) else value


def assert_same_as_kio(struct: schema.Struct, version: int, ours: Any, theirs: Any) -> None:
    names = {field.name for field in dataclasses.fields(theirs)}
    for field in struct.fields:
        if version not in field.versions:
            continue
        their_name = field.name if field.name in names else field.name.removesuffix("_ms")
        ours_value, their_value = getattr(ours, field.name), getattr(theirs, their_name)
        if field.struct and ours_value is not None:
            pairs = zip(ours_value, their_value, strict=True) if field.array else ((ours_value, their_value),)
            for our_element, their_element in pairs:
                assert_same_as_kio(field.struct, version, our_element, their_element)
        else:
            converted = kio_plain(their_value)
            if field.kind == "uuid" and not field.array and converted is None:
                converted = bytes(16)
            assert converted == ours_value, field.name


def assert_kio_agrees(key: ApiKey, version: int, name: str, message: Any, encoded: bytes) -> None:
    if key in KIO_LACKS:
        return
    module = importlib.import_module(f"kio.schema.{schema.snake_case(key.message_name)}.v{version}")
    theirs, size = entity_reader(getattr(module, name))(encoded, 0)
    assert size == len(encoded)
    assert_same_as_kio(schema.load(name).root, version, message, theirs)
    written = io.BytesIO()
    entity_writer(getattr(module, name))(written, theirs)
    assert written.getvalue() == encoded


# ---- the property ----


@pytest.mark.parametrize(("key", "version", "direction"), BODIES, ids=BODY_IDS)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_kafka_python_and_kio_read_and_write_the_same(
    data: st.DataObject, key: ApiKey, version: int, direction: str
) -> None:
    message = data.draw(messages(key, version, direction))
    name = f"{key.message_name}{direction}"
    encoded = encode(key, version, direction, message)
    assert decode(key, version, direction, encoded) == message
    assert_kafka_python_agrees(key, version, name, message, encoded)
    assert_kio_agrees(key, version, name, message, encoded)


# ---- what handlers rely on ----


def test_every_api_has_messages_of_its_key() -> None:
    for key in ApiKey:
        for direction in ("Request", "Response"):
            assert schema.load(f"{key.message_name}{direction}").api_key == key


def test_versions_cover_what_kafka_4_3_advertises() -> None:
    from kafka.protocol.broker_version_data import BROKER_API_VERSIONS

    missing = {}
    for key, (low, high) in BROKER_API_VERSIONS[4, 3].items():
        if key in set(ApiKey):
            known = codec.valid_versions(key)
            low = 3 if key == ApiKey.PRODUCE else low  # 0 to 2 are advertised but refused (KAFKA-18659)
            if not known[0] <= low <= high <= known[1]:
                missing[key] = (known, (low, high))
    assert not missing


def test_fields_that_a_version_lacks_are_left_out_and_default_when_decoded() -> None:
    cls = message_class("MetadataResponse")
    message = cls(cluster_id="cluster", controller_id=7)
    assert (
        codec.decode_response(ApiKey.METADATA, 0, b"".join(codec.encode_response(ApiKey.METADATA, 0, message))) == cls()
    )


def test_unknown_tags_are_ignored() -> None:
    encoded = b"".join(codec.encode_request(ApiKey.METADATA, 9, message_class("MetadataRequest")(topics=[])))
    assert encoded[-1] == 0
    tagged = encoded[:-1] + b"\x02\x63\x02ab\x64\x00"
    assert codec.decode_request(ApiKey.METADATA, 9, tagged).topics == []


def test_null_is_refused_where_the_schema_does_not_allow_it() -> None:
    with pytest.raises(TypeError, match="HeartbeatRequest v4 cannot be encoded"):
        codec.encode_request(ApiKey.HEARTBEAT, 4, message_class("HeartbeatRequest")(group_id=None))


def test_elements_do_not_inherit_the_nullability_of_their_array() -> None:
    cls = message_class("MetadataRequest")
    one = b"".join(codec.encode_request(ApiKey.METADATA, 9, cls(topics=[cls.MetadataRequestTopic(name="t")])))
    assert one == b"\x02\x02t\x00\x01\x00\x00\x00"


def test_records_are_passed_through_without_copies() -> None:
    cls = message_class("FetchResponse")
    records = [memoryview(bytes(1000)), memoryview(bytes(500))]
    partition = cls.PartitionData(records=records)
    message = cls(responses=[cls.FetchableTopicResponse(topic="t", partitions=[partition])])
    for version in range(4, 13):
        buffers = codec.encode_response(ApiKey.FETCH, version, message)
        assert [buffer for buffer in buffers if buffer is records[0] or buffer is records[1]] == records
        decoded = codec.decode_response(ApiKey.FETCH, version, b"".join(buffers))
        assert decoded.responses[0].partitions[0].records == bytes(1500)


def test_decoded_records_are_views_of_the_frame() -> None:
    cls = message_class("ProduceRequest")
    partition = cls.PartitionProduceData(records=b"x" * 100)
    message = cls(topic_data=[cls.TopicProduceData(name="t", partition_data=[partition])])
    for version in range(3, 13):
        frame = bytearray(b"".join(codec.encode_request(ApiKey.PRODUCE, version, message)))
        records = (
            codec.decode_request(ApiKey.PRODUCE, version, memoryview(frame)).topic_data[0].partition_data[0].records
        )
        frame[frame.index(b"x")] = ord("y")
        assert bytes(records) == b"y" + b"x" * 99


def test_messages_compare_and_print_by_field() -> None:
    cls = message_class("HeartbeatRequest")
    assert cls(group_id="a") == cls(group_id="a") != cls(group_id="b")
    assert cls(group_id="a") != message_class("SyncGroupRequest")(group_id="a")
    assert "group_id='a'" in repr(cls(group_id="a"))
    assert isinstance(cls(), Message)


def test_unknown_keys_and_versions_raise_lookup_errors() -> None:
    with pytest.raises(LookupError):
        codec.flexible(99, 0)
    with pytest.raises(LookupError):
        codec.decode_request(99, 0, b"")
    with pytest.raises(LookupError):
        codec.decode_request(ApiKey.PRODUCE, 2, b"")
    with pytest.raises(LookupError):
        codec.decode_data("NoSuchRecord", 0, b"")
    with pytest.raises(ImportError):
        from protocol.messages import NoSuchRequest  # type: ignore[attr-defined]  # noqa: F401
