"""The records of `__transaction_state`: what is written is read back, and is what Kafka 4.3 writes."""

from hypothesis import given
from hypothesis import strategies as st

from broker.transactions.records import TransactionRecord, decode_record, encode_record
from broker.transactions.transaction import CLASSIC, EPOCH_BUMPING, Transaction, TransactionState

ids = st.integers(-1, 2**63 - 1)
partitions = st.frozensets(st.tuples(st.sampled_from(["a", "b", "__consumer_offsets"]), st.integers(0, 99)), max_size=6)
transactions = st.builds(
    Transaction,
    transactional_id=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    producer_id=ids,
    producer_epoch=st.integers(-1, 32767),
    previous_producer_id=ids,
    next_producer_id=ids,
    timeout_ms=st.integers(1, 900_000),
    state=st.sampled_from(list(TransactionState)),
    partitions=partitions,
    start_ms=ids,
    updated_ms=ids,
    client_version=st.sampled_from([CLASSIC, EPOCH_BUMPING]),
)


@given(transactions)
def test_what_is_written_is_read_back(transaction: Transaction) -> None:
    """All but what the format has no place for: a previous id that is the same, the last epoch, partitions of an empty one."""
    key, value = encode_record(TransactionRecord(transaction.transactional_id, transaction))
    record = decode_record(key, value)
    assert record is not None
    assert record.value is not None
    for name in Transaction.__slots__:
        if name == "previous_producer_id" and transaction.previous_producer_id == transaction.producer_id:
            continue
        if name not in ("last_producer_epoch", "partitions"):
            assert getattr(record.value, name) == getattr(transaction, name), name
    if transaction.state is not TransactionState.EMPTY:
        assert record.value.partitions == transaction.partitions


def test_a_deletion_is_a_null_value() -> None:
    key, value = encode_record(TransactionRecord("x", None))
    assert value is None
    assert decode_record(key, value) == TransactionRecord("x", None)
    assert decode_record(b"\0\1", b"") is None


# What a Kafka 4.3.0 wrote for one transaction of a producer with KIP-890: given its id, writing to two partitions, committed.
KAFKA_KEY = "0000002074786e322d636f6d6d69742d61626f72742d3539343934333334332e74783133"
KAFKA_VALUES = [
    "0001000000000000000100000000ea600000000001a211cc824bffffffffffffffff0100080000000000000001",
    (
        "0001000000000000000100000000ea6001021e74786e322d636f6d6d69742d61626f72742d3539343934333334332e74020000000000000001"
        "a211cc8259000001a211cc8259020008000000000000000102020002"
    ),
    (
        "0001000000000000000100000000ea6001021e74786e322d636f6d6d69742d61626f72742d3539343934333334332e7403000000000000000100"
        "000001a211cc8260000001a211cc8259020008000000000000000102020002"
    ),
    (
        "0001000000000000000100010000ea6002021e74786e322d636f6d6d69742d61626f72742d3539343934333334332e7403000000000000000100"
        "000001a211cc8267000001a211cc8259020008000000000000000102020002"
    ),
    "0001000000000000000100010000ea600401000001a211cc8268000001a211cc8259020008000000000000000102020002",
]


def test_the_bytes_are_those_of_kafka() -> None:
    """Kafka's records are read, and the same records are written byte by byte; the states follow one another as here."""
    states = []
    for value in KAFKA_VALUES:
        record = decode_record(bytes.fromhex(KAFKA_KEY), bytes.fromhex(value))
        assert record is not None
        assert record.value is not None
        key, again = encode_record(record)
        assert (key.hex(), again and again.hex()) == (KAFKA_KEY, value)
        states.append((record.value.state.label, record.value.producer_epoch, len(record.value.partitions)))
    assert states == [
        ("Empty", 0, 0), ("Ongoing", 0, 1), ("Ongoing", 0, 2), ("PrepareCommit", 1, 2), ("CompleteCommit", 1, 0),
    ]  # fmt: skip
