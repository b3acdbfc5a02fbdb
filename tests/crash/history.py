"""What was acked, what was read back, and what must hold between the two."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Place = tuple[int, int]  # partition, offset


@dataclass(slots=True)
class History:
    """Every value the producer was told is stored, by its partition and offset."""

    acked: dict[Place, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def problems(self, log: Mapping[int, Iterable[tuple[int, bytes]]]) -> list[str]:
        """Everything wrong with a whole read of the log: `log` maps a partition to its (offset, value) in the order read.

        Values are `PARTITION:NUMBER`, the number growing by one with each record the producer was given for that partition.
        """
        found = []
        for partition, records in log.items():
            last_offset, last_number = -1, -1
            seen = {}
            for offset, value in records:
                if offset != last_offset + 1:
                    found.append(f"gap: partition {partition} goes from offset {last_offset} to {offset}")
                home, _, number = value.partition(b":")
                if int(home) != partition:
                    found.append(f"stray: {value!r} in partition {partition}")
                if int(number) <= last_number:
                    kind = "doubled" if int(number) in seen else "reordered"
                    found.append(f"{kind}: {value!r} at offset {offset} after number {last_number}")
                seen[int(number)] = offset
                last_offset, last_number = offset, max(last_number, int(number))
            stored = dict(records)
            for (place, offset), value in self.acked.items():
                if place == partition and stored.get(offset) != value:
                    found.append(
                        f"lost: partition {partition} offset {offset} was acked as {value!r}, is {stored.get(offset)!r}"
                    )
        return found
