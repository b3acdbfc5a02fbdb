"""Several workers' shards of a search, as if they were one: asked at the same time, their answers merged once.

Scores are comparable between shards: similarities by nature, those of words because their weights come from the texts of all shards.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from vector.index.hits import RecordHit
from vector.shard import Asked, Shard, Words

AskShard = Callable[[str, tuple[Any, ...]], "Future[Any]"]
"""Asks another worker's shard: the method of `Shard` and its arguments. The outcome may be a KafkaError."""

Key = Callable[[RecordHit], bytes | None]
Again = Callable[[int, list[bytes]], list[RecordHit]]
"""What the shard of this number finds when these groups are left out."""


class Shards:
    """`own` is this worker's, `others` are asked for the rest. In a search thread; raises KafkaError."""

    def __init__(self, own: Shard, others: Sequence[AskShard] = ()) -> None:
        self._own = own
        self._others = others

    def _begin(self, method: str, *arguments: Any) -> "list[Future[Any]]":
        return [ask(method, arguments) for ask in self._others]

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Every shard's answer, this worker's first."""
        waiting = self._begin(method, *arguments)
        return [getattr(self._own, method)(*arguments), *(future.result() for future in waiting)]

    def _ask_one(self, shard: int, method: str, *arguments: Any) -> Any:
        return self._others[shard - 1](method, arguments).result() if shard else getattr(self._own, method)(*arguments)

    def words(self, terms: Sequence[str]) -> Words:
        """Over all texts."""
        answers = [Words(*answer) for answer in self._ask("words", terms)]
        frequencies = {term: sum(answer.frequencies[term] for answer in answers) for term in terms}
        return Words(sum(one.texts for one in answers), frequencies, any(one.chunked for one in answers))

    def names(self, places: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """The groups that records are in."""
        return list(dict.fromkeys(name for names in self._ask("names", places) for name in names))

    def best(self, asked: Sequence[Asked], limit: int) -> list[list[RecordHit]]:
        """As `Shard.best`: the best record of a group is among the best of the shard that it lies in."""
        answers = self._ask("best", asked, limit)
        if len(answers) == 1:
            return list(answers[0])

        def again(query: Asked) -> Again:
            return lambda shard, names: _hits(self._ask_one(shard, "best", [_without(query, names)], limit)[0])

        of_queries = zip(asked, zip(*answers, strict=True), strict=True)
        return [_merged(lists, lambda hit: hit.name, limit, again(query)) for query, lists in of_queries]

    def legs(self, asked: Asked, count: int, *, by_text: bool) -> tuple[list[RecordHit], list[RecordHit]]:
        """As `Shard.legs`."""
        answers = self._ask("legs", asked, count, by_text)
        if len(answers) == 1:
            near, worded = answers[0]
            return near, worded

        def again(leg: int) -> Again:
            return lambda shard, names: _hits(self._ask_one(shard, "legs", _without(asked, names), count, by_text)[leg])

        key: Key = (lambda hit: hit.content) if by_text else (lambda _: None)
        near, worded = (_merged([answer[leg] for answer in answers], key, count, again(leg)) for leg in (0, 1))
        return near, worded

    def same_text(self, asked: Asked, texts: Sequence[tuple[bytes, float]], limit: int) -> list[tuple[int, RecordHit]]:
        """As `Shard.same_text`, in order."""
        answers = self._ask("same_text", asked, texts, limit)
        found = [(number, RecordHit(*hit)) for answer in answers for number, hit in answer]
        return sorted(found, key=lambda pair: pair[1].order)[:limit]

    def duplicates(self, names: Sequence[bytes]) -> Mapping[bytes, int]:
        """How many matching records there are in each group, or of each text."""
        answers = self._ask("duplicates", names)
        return {name: sum(numbers) for name, *numbers in zip(names, *answers, strict=True)}

    def vectors(self, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """float32 little-endian, by partition and offset."""
        answers = self._ask("vectors", places)
        return {(partition, offset): vector for answer in answers for partition, offset, vector in answer}


def _hits(rows: Sequence[Any]) -> list[RecordHit]:
    return [RecordHit(*row) for row in rows]


def _without(asked: Asked, names: Sequence[bytes]) -> Asked:
    return asked._replace(names=[*asked.names, *names])


def _merged(lists: Sequence[Sequence[Any]], key: Key, limit: int, again: Again) -> list[RecordHit]:
    """The `limit` best hits of several shards, a group (None: no group) once.

    A long text has several contents: where its record lost one of them to another shard it may stand for another one, which its
    shard tells when it is asked again.
    """
    found = [_hits(rows) for rows in lists]
    lost: list[list[bytes]] = [[] for _ in lists]
    while True:
        chosen: list[RecordHit] = []
        seen: set[bytes] = set()
        beaten: tuple[int, bytes] | None = None
        pairs = [(hit, shard) for shard, hits in enumerate(found) for hit in hits]
        for hit, shard in sorted(pairs, key=lambda pair: pair[0].order):
            name = key(hit)
            if name is not None and name in seen:
                if hit.pieces > 1:
                    beaten = shard, name
                    break
                continue
            if name is not None:
                seen.add(name)
            chosen.append(hit)
            if len(chosen) == limit:
                break
        if beaten is None:
            return chosen
        shard, name = beaten
        lost[shard].append(name)
        found[shard] = again(shard, lost[shard])
