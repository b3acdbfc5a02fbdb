"""What a new topic must look like: its name, its counts, replicas given by hand. Pure; Kafka 4.3's codes and texts."""

import re
from collections.abc import Iterable, Mapping, Sequence

from protocol.errors import ErrorCode, KafkaError

INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
METADATA_TOPIC = "__cluster_metadata"
MAX_NAME_LENGTH = 249
# Kafka's own limit (ReplicationControlManager.MAX_PARTITIONS_PER_BATCH): more would be one huge change of metadata.
MAX_PARTITIONS_PER_REQUEST = 10_000
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)


def check_name(name: str) -> None:
    """Raises KafkaError INVALID_TOPIC_EXCEPTION, saying what is wrong."""
    if reason := _name_fault(name):
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {reason}")


def valid_name(name: str) -> bool:
    return _name_fault(name) is None


def _name_fault(name: str) -> str | None:
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return f"'{name}' is not allowed"
    if len(name) > MAX_NAME_LENGTH:
        return f"the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
    if not _LEGAL.fullmatch(name):
        return f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    return None


def check_once(times: int) -> None:
    """Raises KafkaError for a topic that a request names `times` times, if that is more than once."""
    if times > 1:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")


def check_added(partitions: int) -> None:
    """Raises KafkaError when a request would add too many partitions."""
    if partitions > MAX_PARTITIONS_PER_REQUEST:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request.")


def collision_key(name: str) -> str:
    """Topics that differ only in `.` and `_` would share metric names: Kafka refuses the second one."""
    return name.replace(".", "_")


def check_new_name(name: str, existing: Mapping[str, Iterable[str]]) -> None:
    """Raises KafkaError for a name that cannot be created; `existing`: collision key -> topic names.

    Kafka checks a request's names against the topics before it: they may collide with one another.
    """
    if name == METADATA_TOPIC:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Creation of internal topic {name} is prohibited.")
    check_name(name)
    others = existing.get(collision_key(name), ())
    if name in others:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    for other in others:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {other}")


def check_counts(partitions: int, replication_factor: int) -> None:
    """Checks counts given by number, where -1 means the broker's default; there is one node."""
    if replication_factor < -1 or replication_factor == 0:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    if partitions < -1 or partitions == 0:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value.")
    if replication_factor > 1:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {replication_factor} time(s): The target replication factor of "
            f"{replication_factor} cannot be reached because only 1 broker(s) are registered or some brokers have all "
            "their log directories cordoned.",
        )


def check_replicas(replicas: Sequence[int], node_id: int) -> None:
    """Checks one partition's replicas given by hand."""
    if not replicas:
        reason = "The manual partition assignment includes an empty replica list."
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)
    for position, replica in enumerate(replicas):
        if replica in replicas[:position]:
            reason = f"The manual partition assignment includes the broker {replica} more than once."
            raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)
    for replica in replicas:
        if replica != node_id:
            reason = f"The manual partition assignment includes broker {replica}, but no such broker is registered."
            raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)


def check_assignments(
    assignments: Sequence[tuple[int, Sequence[int]]], partitions: int, replication_factor: int, node_id: int
) -> int:
    """Checks a new topic's replicas given by hand as (partition, node ids); returns the number of partitions."""
    if replication_factor != -1:
        reason = "A manual partition assignment was specified, but replication factor was not set to -1."
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
    if partitions != -1:
        reason = "A manual partition assignment was specified, but numPartitions was not set to -1."
        raise KafkaError(ErrorCode.INVALID_REQUEST, reason)
    seen: set[int] = set()
    for partition, replicas in assignments:
        if partition in seen:
            reason = f"Found multiple manual partition assignments for partition {partition}"
            raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)
        seen.add(partition)
        check_replicas(replicas, node_id)
    if seen != set(range(len(assignments))):
        reason = "partitions should be a consecutive 0-based integer sequence"
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)
    return len(assignments)


def check_growth(
    topic: str, current: int, total: int, assignments: Sequence[Sequence[int]] | None, node_id: int
) -> None:
    """Checks CreatePartitions for one topic; `assignments` are the new partitions' replicas, None: the broker chooses."""
    if total == current:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {current} partition(s).")
    if total < current:
        reason = f"The topic {topic} currently has {current} partition(s); {total} would not be an increase."
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, reason)
    if assignments is None:
        return
    if len(assignments) != total - current:
        reason = (
            f"Attempted to add {total - current} additional partition(s), but only {len(assignments)} assignment(s) "
            "were specified."
        )
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, reason)
    for replicas in assignments:
        check_replicas(replicas, node_id)
