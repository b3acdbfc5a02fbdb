"""What several workers say of one topic is told as if one had said it."""

from typing import Any

from broker.search.told import merged_embedders, merged_status


def embedder(model: str, texts: int, **changes: Any) -> dict[str, Any]:
    names = ("queries_embedded", "calls", "tokens", "cache_hits", "cached", "retries", "poisoned", "seconds", "waiting")
    told = {"model": model, "texts_embedded": texts, **dict.fromkeys(names, 1)}
    return told | {"circuit": "closed", "trouble": None, "failures": [], "tokens_estimated": False} | changes


def status(partitions: dict[int, int], **changes: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "identity": {"model": "m"},
        "generations": {"building": None, "previous": None},
        "trouble": None,
        "paused": False,
        "over_budget": False,
        "embedder": embedder("m", sum(partitions.values())),
        "objects": None,
        "partitions": {p: {"indexed_offset": offset} for p, offset in partitions.items()},
    } | changes


def build(records: int, done: int, rate: float, **changes: Any) -> dict[str, Any]:
    told = {"generation": 2, "records": records, "done": done, "failed": 1, "progress": done / records}
    return told | {"rate_per_s": rate, "eta_s": None, "trouble": None} | changes


def test_counters_are_added_and_the_worst_circuit_is_shown() -> None:
    open_one = embedder("m", 5, circuit="open", trouble="away", failures=["refused"], tokens_estimated=True)
    merged = merged_embedders([embedder("m", 3), open_one, embedder("other", 2)])
    assert [(one["model"], one["texts_embedded"]) for one in merged] == [("m", 8), ("other", 2)]
    assert (merged[0]["circuit"], merged[0]["trouble"], merged[0]["failures"]) == ("open", "away", ["refused"])
    assert (merged[0]["tokens"], merged[0]["tokens_estimated"]) == (2, True)


def test_the_lead_has_the_first_word_and_everyone_its_partitions() -> None:
    lead = status({0: 5}, generation=2)
    other = status({1: 7}, trouble="no such model", over_budget=True)
    merged = merged_status({1: other, 0: lead})
    assert merged is not None
    assert (merged["generation"], merged["trouble"], merged["over_budget"]) == (2, "no such model", True)
    assert {p: row["indexed_offset"] for p, row in merged["partitions"].items()} == {0: 5, 1: 7}
    assert merged["embedder"]["texts_embedded"] == 12
    assert merged_status({}) is None
    assert merged_status({3: other}) == other, "without the lead, what the others say"


def test_a_build_is_as_far_as_all_of_it() -> None:
    told = {
        0: status({0: 5}, generations={"building": build(100, 100, 10.0), "previous": None}),
        1: status({1: 7}, generations={"building": build(300, 100, 30.0, trouble="full"), "previous": None}),
        2: status({2: 7}, generations={"building": build(100, 50, 1.0, generation=9), "previous": None}),
    }
    merged = merged_status(told)
    assert merged is not None
    building = merged["generations"]["building"]
    assert (building["records"], building["done"], building["failed"], building["progress"]) == (400, 200, 2, 0.5)
    assert (building["eta_s"], building["trouble"]) == (5.0, "full")
