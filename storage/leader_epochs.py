"""Which leader epoch wrote which offsets (KIP-101, KIP-320)."""

from bisect import bisect_left, bisect_right


class LeaderEpochs:
    """Epochs with their first offsets, both ascending."""

    __slots__ = ("epochs", "start_offsets")

    def __init__(self, entries: list[tuple[int, int]] | None = None) -> None:
        self.epochs = [epoch for epoch, _ in entries or []]
        self.start_offsets = [offset for _, offset in entries or []]

    def entries(self) -> list[tuple[int, int]]:
        """(epoch, first offset), ascending."""
        return list(zip(self.epochs, self.start_offsets, strict=True))

    def assign(self, epoch: int, offset: int) -> None:
        """`offset` is the first one written under `epoch`; older epochs are ignored."""
        if not self.epochs or epoch > self.epochs[-1]:
            self.epochs.append(epoch)
            self.start_offsets.append(offset)

    def end_offset(self, epoch: int, current_epoch: int, log_end_offset: int) -> tuple[int, int]:
        """(epoch, end offset) as OffsetForLeaderEpoch answers; (-1, -1) for an epoch not reached yet.

        The end of an epoch is the start of the next one; an epoch that wrote nothing falls back to the one before, and
        one below the first known epoch ends where that starts (LeaderEpochFileCache.endOffsetFor of Kafka 4).
        """
        if epoch == current_epoch:
            return epoch, log_end_offset
        if epoch > current_epoch or epoch == -1:
            return -1, -1
        index = bisect_right(self.epochs, epoch)
        end = self.start_offsets[index] if index < len(self.epochs) else log_end_offset
        return (self.epochs[index - 1] if index else epoch), end

    def epoch_of(self, offset: int) -> int:
        """The epoch that wrote `offset`; -1 if unknown."""
        index = bisect_right(self.start_offsets, offset)
        return self.epochs[index - 1] if index else -1

    def drop_below(self, log_start_offset: int) -> None:
        """Forget epochs that ended before the log's start; the one that covers it begins there."""
        index = bisect_right(self.start_offsets, log_start_offset) - 1
        if index > 0:
            del self.epochs[:index]
            del self.start_offsets[:index]
        if self.start_offsets:
            self.start_offsets[0] = max(self.start_offsets[0], log_start_offset)

    def drop_from(self, log_end_offset: int) -> None:
        """Forget epochs that begin at or beyond a cut end."""
        index = bisect_left(self.start_offsets, log_end_offset)
        del self.epochs[index:]
        del self.start_offsets[index:]
