"""The OpenAPI document against the broker: generated requests, right ones and wrong ones, get documented answers and never a 5xx.

`make openapi` sends 10,000; a test sends fewer.
"""

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.broker_process import BrokerProcess

ALLOWED_5XX = (503, 504)  # documented: not now, not in time
TOPICS = ("logs", "plain", "nowhere")
PARTITIONS_MAX = 4
"""Of topics that are created: ten thousand partitions each would test patience alone."""


def run(broker: BrokerProcess, cases: int, chance: int) -> Counter[tuple[str, int]]:
    """Sends `cases` requests or a few more; returns how often each operation gave each status. Raises AssertionError, with the request."""
    schema = schemathesis.openapi.from_url(f"http://{broker.http}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    answers: Counter[tuple[str, int]] = Counter()
    per_strategy = max(1, cases // (2 * len(operations)))
    while answers.total() < cases:  # some operations have few requests that differ
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _try(operation, mode, per_strategy, chance, answers)
        chance += 1
    return answers


def _try(operation: Any, mode: Any, count: int, chance: int, answers: Counter[tuple[str, int]]) -> None:
    pick = random.Random(chance)
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except Exception:  # an operation without parameters has no wrong request
        return

    @seed(chance)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def try_one(case: Any) -> None:
        _tame(case, pick)
        response = case.call(timeout=60)
        answers[operation.label, response.status_code] += 1
        assert response.status_code < 500 or response.status_code in ALLOWED_5XX, response.text
        case.validate_response(
            response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
        )

    try:
        try_one()
    except Exception as error:
        if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
            raise


def _tame(case: Any, pick: random.Random) -> None:
    """Most requests name a topic that exists, so that they get further than 404; none makes the broker huge or waits long."""
    if "topic" in (case.path_parameters or {}) and pick.random() < 0.8:
        case.path_parameters["topic"] = pick.choice(TOPICS)
    if case.method == "DELETE":
        case.path_parameters["topic"] = "nowhere"
    if isinstance(case.body, dict):
        if isinstance(case.body.get("partitions"), int):
            case.body["partitions"] = min(case.body["partitions"], PARTITIONS_MAX)
        consistency = case.body.get("consistency")
        if isinstance(consistency, dict) and isinstance(consistency.get("wait_ms"), int):
            consistency["wait_ms"] = min(consistency["wait_ms"], 10)
    if isinstance(case.query, dict) and str(case.query.get("wait_ms", "")).isdecimal():
        case.query["wait_ms"] = min(int(case.query["wait_ms"]), 10)


def prepare(broker: BrokerProcess) -> None:
    """Topics to ask for."""
    import httpx

    config = {"vector.enabled": True, "vector.embedding.model": "hashing:8"}
    url = f"http://{broker.http}/v1/topics"
    httpx.post(url, json={"name": "logs", "partitions": 2, "configs": config}, timeout=30).raise_for_status()
    httpx.post(url, json={"name": "plain"}, timeout=30).raise_for_status()


def main() -> None:
    """`python -m tests.contract.openapi --cases N`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        broker = BrokerProcess(Path(directory), "storage.sync=os")
        broker.start()
        try:
            prepare(broker)
            answers = run(broker, options.cases, options.seed)
        finally:
            broker.end()
    for (operation, status), count in sorted(answers.items()):
        print(f"{count:7,}  {status}  {operation}")
    print(f"{sum(answers.values()):7,}  requests, none with an undocumented answer")


if __name__ == "__main__":
    main()
