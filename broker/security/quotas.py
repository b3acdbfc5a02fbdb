"""Client quotas (KIP-13, 124, 257, 546, 599, 612): how much a user, a client id or an address may do, and for how long it has to wait.

Pure: who measures also says what time it is. Kafka averages over `quota.window.num` windows and lets a client wait for what it
did beyond the average; a bucket that holds as many seconds' worth gives the same waits, with two numbers per client.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

USER, CLIENT_ID, IP = "user", "client-id", "ip"
PRODUCER_BYTE_RATE = "producer_byte_rate"
CONSUMER_BYTE_RATE = "consumer_byte_rate"
REQUEST_PERCENTAGE = "request_percentage"
CONTROLLER_MUTATION_RATE = "controller_mutation_rate"
CONNECTION_CREATION_RATE = "connection_creation_rate"

Entity: TypeAlias = tuple[tuple[str, str | None], ...]
"""Types and names in order of the types; None is the default for those that have no quota of their own."""

# Client ids are of the clients' making. Kafka forgets those that were silent for an hour; beyond this many, all start anew.
BUCKETS_MAX = 10_000


def entity_of(names: Mapping[str, str | None]) -> Entity:
    return tuple(sorted(names.items()))


class Bucket:
    """What one client has left, in units; below zero it has to wait."""

    __slots__ = ("_burst", "_rate", "_seen_s", "_tokens")

    def __init__(self, rate: float, burst_s: float, now_s: float) -> None:
        self._rate = rate
        self._burst = rate * burst_s
        self._tokens = self._burst
        self._seen_s = now_s

    def take(self, units: float, now_s: float) -> float:
        """Takes them in any case; returns for how many seconds the client has to wait."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._seen_s) * self._rate) - units
        self._seen_s = now_s
        return max(0.0, -self._tokens / self._rate)

    def give_back(self, units: float) -> None:
        self._tokens += units

    def wait_s(self, now_s: float) -> float:
        """For how long the client has to wait as it is."""
        return self.take(0.0, now_s)


class _Place(NamedTuple):
    """Which bucket a client's use goes into."""

    bucket: tuple[str, str | None, str | None]
    rate: float


class Quotas:
    """All quotas, and the buckets of the clients that they hold for."""

    def __init__(self, entries: Iterable[tuple[Entity, Mapping[str, float]]], burst_s: float) -> None:
        """`burst_s`: how long a client that was silent may exceed its rate by as much again."""
        self._burst_s = burst_s
        self.replace(entries)

    def replace(self, entries: Iterable[tuple[Entity, Mapping[str, float]]]) -> None:
        """Sets all quotas; what clients have used so far is forgotten."""
        self.entries: dict[Entity, dict[str, float]] = {entity: dict(values) for entity, values in entries if values}
        self.active = any(dict(entity).keys() != {IP} for entity in self.entries)
        """Whether any request can be throttled; nothing is measured otherwise."""
        self.limits_connections = any(dict(entity).keys() == {IP} for entity in self.entries)
        self._places: dict[tuple[str, str, str], _Place | None] = {}
        self._buckets: dict[tuple[str, str | None, str | None], Bucket] = {}

    def take(self, key: str, user: str, client_id: str, units: float, now_s: float) -> float:
        """Records use of the kind `key`; returns the seconds to wait, 0 without a quota."""
        bucket = self.bucket(key, user, client_id, now_s)
        return bucket.take(units, now_s) if bucket is not None else 0.0

    def bucket(self, key: str, user: str, client_id: str, now_s: float) -> Bucket | None:
        """The bucket that holds for a client's use of the kind `key`; None without a quota."""
        place = self._place(key, user, client_id)
        if place is None:
            return None
        bucket = self._buckets.get(place.bucket)
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX:
                self._buckets.clear()
            bucket = self._buckets[place.bucket] = Bucket(place.rate, self._burst_s, now_s)
        return bucket

    def window_units(self, key: str, user: str, client_id: str) -> float:
        """The most that a client may use at once without having to wait for longer than all windows; infinite without a quota."""
        place = self._place(key, user, client_id)
        return math.inf if place is None else place.rate * self._burst_s

    def connection_wait_s(self, host: str, now_s: float) -> float:
        """Records a connection from an address; returns the seconds by which it came too early."""
        return self.take(CONNECTION_CREATION_RATE, host, "", 1.0, now_s)

    def _place(self, key: str, user: str, client_id: str) -> _Place | None:
        asked = (key, user, client_id)
        if asked not in self._places:
            if len(self._places) >= BUCKETS_MAX:
                self._places.clear()
            self._places[asked] = self._find(key, user, client_id)
        return self._places[asked]

    def _find(self, key: str, user: str, client_id: str) -> _Place | None:
        """The most specific entity with a quota of this kind, in Kafka's order; defaults hold for each client by itself."""
        for names in _ip_order(user) if key == CONNECTION_CREATION_RATE else _order(user, client_id):
            rate = self.entries.get(entity_of(names), {}).get(key, math.nan)
            if not math.isnan(rate):
                by_user = user if USER in names or IP in names else None
                by_client = client_id if CLIENT_ID in names else None
                return _Place((key, by_user, by_client), rate)
        return None


NO_QUOTAS = Quotas((), 1.0)


def _order(user: str, client_id: str) -> Sequence[Mapping[str, str | None]]:
    return (
        {USER: user, CLIENT_ID: client_id},
        {USER: user, CLIENT_ID: None},
        {USER: user},
        {USER: None, CLIENT_ID: client_id},
        {USER: None, CLIENT_ID: None},
        {USER: None},
        {CLIENT_ID: client_id},
        {CLIENT_ID: None},
    )


def _ip_order(host: str) -> Sequence[Mapping[str, str | None]]:
    return ({IP: host}, {IP: None})
