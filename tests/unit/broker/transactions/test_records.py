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
    """All but the last epoch, which the format has no place for, and partitions of an empty transaction, which has none."""
    key, value = encode_record(TransactionRecord(transaction.transactional_id, transaction))
    record = decode_record(key, value)
    assert record is not None
    assert record.value is not None
    for name in Transaction.__slots__:
        if name not in ("last_producer_epoch", "partitions"):
            assert getattr(record.value, name) == getattr(transaction, name), name
    if transaction.state is not TransactionState.EMPTY:
        assert record.value.partitions == transaction.partitions


def test_a_deletion_is_a_null_value() -> None:
    key, value = encode_record(TransactionRecord("x", None))
    assert value is None
    assert decode_record(key, value) == TransactionRecord("x", None)
    assert decode_record(b"\0\1", b"") is None


def test_the_bytes_are_those_of_kafka() -> None:
    """Recorded from a Kafka 4.3.0: an id that has just been given to a producer, and the same with an open transaction."""
    fresh = Transaction("ctx", 7, 0, timeout_ms=60000, updated_ms=1, state=TransactionState.EMPTY)
    key, value = encode_record(TransactionRecord("ctx", fresh))
    assert key == bytes.fromhex("00000003637478")
    head = "0001000000000000000700000000ea60"
    assert value is not None
    assert value.hex() == head + "00" + "00" + "0000000000000001" + "ffffffffffffffff" + "00"
    begun = Transaction(
        "ctx", 7, 0, timeout_ms=60000, start_ms=2, updated_ms=1, state=TransactionState.ONGOING,
        partitions=frozenset({("t", 1)}), client_version=EPOCH_BUMPING,
    )  # fmt: skip
    _, value = encode_record(TransactionRecord("ctx", begun))
    assert value is not None
    rows = "020274020000000100"
    assert value.hex() == head + "01" + rows + "0000000000000001" + "0000000000000002" + "01" + "0202" + "0002"
