"""The leader epoch that a client believes in, against ours (KIP-320)."""

from protocol.errors import ErrorCode, KafkaError
from storage.log import PartitionLog

UNSET = -1


def check_leader_epoch(log: PartitionLog, current_leader_epoch: int) -> None:
    """Raises KafkaError FENCED_LEADER_EPOCH when the client is behind, UNKNOWN_LEADER_EPOCH when it is ahead."""
    if current_leader_epoch == UNSET or current_leader_epoch == log.leader_epoch:
        return
    behind = current_leader_epoch < log.leader_epoch
    raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH if behind else ErrorCode.UNKNOWN_LEADER_EPOCH)
