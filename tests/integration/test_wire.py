"""Bytes of every kind over a real socket: what is no request closes its own connection and harms no other one."""

import random
import socket
import struct

import pytest

from protocol.messages import ApiVersionsRequest, HeartbeatRequest, MetadataRequest
from tests.broker_process import BrokerProcess
from tests.integration.raw import RawConnection, batch, fetch_request, frame, produce_request

API_VERSIONS = struct.pack(">hhih", 18, 0, 7, -1)


def header(key: int, version: int, *, flexible: bool = False) -> bytes:
    return struct.pack(">hhih", key, version, 7, 3) + b"raw" + (b"\0" if flexible else b"")


def test_answers_come_in_request_order_whatever_waits(connection: RawConnection) -> None:
    connection.create_topic("order")
    requests = [
        connection.request(1, 12, fetch_request("order", 0, max_wait_ms=300)),
        connection.request(18, 3, ApiVersionsRequest(client_software_name="raw", client_software_version="1")),
        connection.request(3, 9, MetadataRequest(topics=[])),
        connection.request(12, 0, HeartbeatRequest(group_id="nobody", generation_id=1, member_id="m")),
    ]
    connection.push(b"".join(requests))
    order = [connection.receive()[0] for _ in requests]
    assert order == sorted(order)


def test_pipelined_produces_are_acked_in_order(connection: RawConnection) -> None:
    connection.create_topic("pipelined")
    connection.push(
        b"".join(connection.request(0, 9, produce_request("pipelined", batch(b"%d" % i))) for i in range(300))
    )
    offsets = [connection.receive()[1].responses[0].partition_responses[0].base_offset for _ in range(300)]
    assert offsets == list(range(300))


def test_a_client_reads_its_own_writes_without_acks(connection: RawConnection) -> None:
    connection.create_topic("acks-0")
    connection.push(connection.request(0, 9, produce_request("acks-0", batch(b"a", b"b"), acks=0)))
    assert connection.fetch("acks-0", 0).high_watermark == 2


def test_byte_by_byte(connection: RawConnection) -> None:
    for byte in frame(API_VERSIONS):
        connection.push(bytes([byte]))
    answer = connection.receive_frame()
    assert answer is not None
    assert struct.unpack_from(">ih", answer) == (7, 0)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", 100 * 2**20 + 1),
        frame(b""),
        frame(b"\0\3\0"),
        frame(header(999, 0)),
        frame(header(-1, 0)),
        frame(header(3, 99, flexible=True)),
        frame(header(0, 2)),
        frame(header(1, 3)),
        frame(header(3, 1)),
        frame(header(3, 1) + struct.pack(">i", 2**31 - 1)),
        frame(header(3, 9, flexible=True) + b"\xff" * 10),
        frame(struct.pack(">hhih", 18, 0, 7, 900) + b"abc"),
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + b"\1" * 190,
    ],
    ids=lambda data: data[:16].hex(),
)
def test_malformed_bytes_close_their_connection_only(
    broker: BrokerProcess, connection: RawConnection, data: bytes
) -> None:
    with RawConnection(broker.bootstrap) as bad:
        bad.push(data)
        assert bad.receive_frame() is None
    connection.push(frame(API_VERSIONS))
    assert connection.receive_frame() is not None


def test_a_good_frame_before_a_bad_one_is_answered(connection: RawConnection) -> None:
    connection.push(frame(API_VERSIONS) + struct.pack(">i", -1))
    assert connection.receive_frame() is not None
    assert connection.receive_frame() is None


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(connection: RawConnection) -> None:
    for _ in range(2):
        connection.push(frame(header(18, 99, flexible=True) + b"\4raw\21\0"))
        answer = connection.receive_frame()
        assert answer is not None
        assert struct.unpack(">ihihhh", answer) == (7, 35, 1, 18, 0, 4)
    assert (
        connection.call(18, 4, ApiVersionsRequest(client_software_name="raw", client_software_version="1")).error_code
        == 0
    )


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_harm_nobody(broker: BrokerProcess, connection: RawConnection, seed: int) -> None:
    chance = random.Random(seed)
    with RawConnection(broker.bootstrap) as bad:
        data = chance.randbytes(chance.randrange(1, 5000))
        bad.push(
            frame(data) if seed % 2 else frame(header(chance.choice((0, 1, 3, 18, 19)), chance.randrange(10)) + data)
        )
        bad.socket.shutdown(socket.SHUT_WR)
        while bad.receive_frame() is not None:
            pass
    connection.push(frame(API_VERSIONS))
    assert connection.receive_frame() is not None


def test_unfinished_frames_do_not_delay_others(broker: BrokerProcess, connection: RawConnection) -> None:
    with RawConnection(broker.bootstrap) as slow, RawConnection(broker.bootstrap) as half:
        slow.push(struct.pack(">i", 100 * 2**20) + header(0, 9))
        half.push(b"\0\0")
        connection.push(frame(API_VERSIONS))
        assert connection.receive_frame() is not None


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ({"crc": 1}, 2),
        ({"batch_length": -1}, 2),
        ({"batch_length": 1_000_000}, 87),
        ({"record_count": 7}, 87),
        ({"magic": 1}, 87),
        ({"magic": 3}, 2),
        ({"base_offset": 5}, 87),
    ],
    ids=str,
)
def test_damaged_batches_get_kafkas_codes(connection: RawConnection, damage: dict[str, int], code: int) -> None:
    name = f"damaged-{'-'.join(f'{k}{v}' for k, v in damage.items())}"
    connection.create_topic(name)
    answer = connection.produce(name, damaged(batch(b"a", b"b"), **damage))
    assert (answer.error_code, answer.base_offset) == (code, -1)
    assert connection.produce(name, batch(b"good")).error_code == 0
    assert connection.fetch(name, 0).high_watermark == 1


def damaged(data: bytes, **fields: int) -> bytes:
    """The batch with header fields replaced; the checksum is made right again unless it is what is wrong."""
    from protocol.crc import crc32c

    places = {"base_offset": (0, ">q"), "batch_length": (8, ">i"), "magic": (16, ">b"), "record_count": (57, ">i")}
    changed = bytearray(data)
    for name, value in fields.items():
        if name != "crc":
            position, form = places[name]
            struct.pack_into(form, changed, position, value)
    struct.pack_into(">I", changed, 17, fields.get("crc", crc32c(changed[21:])))
    return bytes(changed)
