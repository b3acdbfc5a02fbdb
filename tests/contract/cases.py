"""What every door must answer alike. A feature of search is not finished before its cases stand here."""

from typing import Any

from tests.contract.doors import Case

TOPIC, PLAIN, PARTITIONS, PER_PARTITION, DIMENSIONS = "contract", "plain", 2, 60, 64
RECORDS = PARTITIONS * PER_PARTITION
FRESH: dict[str, Any] = {"latest": True, "max_wait_ms": 20_000}
QUESTION = "login trouble with memory"
VECTOR = tuple(1.0 if number == 3 else 0.25 for number in range(DIMENSIONS))


def _ok(name: str, *queries: Any, hits: int | None = None, **options: Any) -> Case:
    return Case(name, TOPIC, queries or (QUESTION,), FRESH | options, hits)


def _filtered(hits: int, **conditions: Any) -> Case:
    return _ok(f"filter {conditions}", filter=conditions, limit=RECORDS, hits=hits)


def _refused(name: str, code: int, *queries: Any, topic: str = TOPIC, **options: Any) -> Case:
    return Case(name, topic, queries or (QUESTION,), options, code=code)


ANSWERED = (
    _ok("a text", hits=10),
    _ok("one hit", limit=1, hits=1),
    _ok("the most hits", limit=1000, hits=RECORDS),
    _ok("a vector", {"vector": VECTOR}, hits=10),
    _ok("more like a record", {"record": (0, 17)}),
    _ok("several queries", "disk", {"record": (1, 3)}, {"vector": VECTOR}, "login"),
    _filtered(60, partition=1),
    _filtered(10, partition=0, min_offset=10, max_offset=19),
    _filtered(20, offset={"gte": 30, "lt": 40}),
    _filtered(13, offsets={"0": {"gte": 50}, "1": {"lt": 3}}),
    _filtered(40, timestamp={"gte": 1020, "lt": 1060}),
    _filtered(0, timestamp={"gte": 999_999}),
    _filtered(120, partitions=[0, 1]),
    _filtered(40, key={"any": ["network", "login"]}),
    _filtered(40, key={"eq": {"base64": "//4="}}),
    _filtered(20, key={"prefix": "pay"}),
    _filtered(2, must=[{"header": "n", "any": ["7", "8", "none"]}]),
    _filtered(118, must_not=[{"header": "n", "any": ["7", "8", "none"]}]),
    _filtered(0, must=[{"path": "$.level", "exists": True}]),
    _filtered(23, should=[{"key": {"eq": "login"}}, {"header": "n", "prefix": "7"}, {"partition": 1}], min_should=2),
    _ok("nothing but places", include=(), hits=10),
    _ok("vectors and cut values", include=("value", "vector"), max_value_bytes=7, hits=10),
    _ok("ranks", include=("key", "scores"), hits=10),
    _ok("exact", exact=True, hits=10),
    _ok("words", mode="text", include=("key", "scores"), limit=RECORDS),
    _ok("words of a record", {"record": (0, 17)}, mode="text", limit=RECORDS),
    _ok("words that no text has", "zzz qqq", mode="text", hits=0),
    _ok("words, filtered", mode="text", filter={"key": {"eq": "login"}}, limit=RECORDS, hits=20),
    _ok("words and meaning", mode="hybrid", include=("key", "scores"), limit=RECORDS, hits=RECORDS),
    _ok("words and meaning by scores", "disk", {"record": (1, 3)}, mode="hybrid", fusion="weighted", vector_weight=0.25),
    _ok("one for each key by words and meaning", mode="hybrid", collapse="key", hits=5),
    _ok("one for each text", collapse="text", limit=RECORDS),
    _ok("one for each key", collapse="key", limit=RECORDS, hits=5),
    _ok("one for each header", collapse="header:n", limit=RECORDS, hits=RECORDS),
    _ok("one for each of a path that no record has", collapse="$.level", limit=RECORDS, hits=RECORDS),
    _ok("like some and unlike others", {"positive": ["disk", (0, 17)], "negative": ["login", VECTOR]}, limit=RECORDS, hits=RECORDS - 1),
    _ok("a wide walk", ef=500, hits=10),
    _ok("only what is near", min_similarity=0.9, limit=100),
    _ok("freshness reached", min_offsets={0: PER_PARTITION, 1: 1}, hits=10),
    _ok("freshness not reached, partial", min_offsets={0: 10_000}, max_wait_ms=20, latest=False, partial_ok=True, hits=10),
    _ok("uncommitted", isolation="read_uncommitted", hits=10),
)  # fmt: skip

REFUSED = (
    _refused("an unknown topic", 3, topic="nowhere"),
    _refused("a topic without vectors", 40, topic=PLAIN),
    _refused("no hits wanted", 42, limit=0),
    _refused("too many hits", 44, limit=1001),
    _refused("too many queries", 44, *["x"] * 65),
    _refused("an empty text", 42, ""),
    _refused("a text of blanks", 42, " \n"),
    _refused("a text too long", 44, "x" * 65_537),
    _refused("an empty query", 42, {}),
    _refused("a vector of other dimensions", 42, {"vector": (1.0, 2.0)}),
    _refused("a vector without numbers", 42, {"vector": ()}),
    _refused("a vector with NaN", 42, {"vector": (float("nan"),) * DIMENSIONS}),
    _refused("a vector with infinity", 42, {"vector": (float("inf"),) * DIMENSIONS}),
    _refused("a record that is not there", 91, {"record": (0, 9999)}),
    _refused("a record of no partition", 3, {"record": (9, 0)}),
    _refused("no such partition", 3, filter={"partition": 9}),
    _refused("a partition twice", 42, filter={"partitions": [0, 0]}),
    _refused("freshness of no partition", 3, min_offsets={9: 1}),
    _refused("an unknown condition", 42, filter={"colour": "red"}),
    _refused("a condition without a test", 42, filter={"must": [{"path": "$.a"}]}),
    _refused("a path that is none", 42, filter={"must_not": [{"path": "a", "eq": 1}]}),
    _refused("a partition deep in a filter", 3, filter={"should": [{"partition": 9}]}),
    _refused("a filter too large", 44, filter={"key": {"any": ["a"] * 1025}}),
    _refused("words of a vector", 42, {"vector": VECTOR}, mode="text"),
    _refused("a similarity of words", 42, mode="text", min_similarity=0.5),
    _refused("a weight above one", 42, mode="hybrid", vector_weight=1.5),
    _refused("a collapse by nothing", 42, collapse="level"),
    _refused("a cursor that is none", 42, cursor=b"next"),
    _refused("no walk", 42, ef=0),
    _refused("a walk too wide", 44, ef=5000),
    _refused("a negative wait", 42, max_wait_ms=-1),
    _refused("a wait too long", 44, max_wait_ms=300_001),
    _refused("freshness not reached", 78, min_offsets={0: 10_000}, max_wait_ms=20),
    _refused("infinite similarity", 42, min_similarity=float("inf")),
)  # fmt: skip
