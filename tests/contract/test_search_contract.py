"""One search behind every door: each case gives the same hits, scores and errors, whichever way it is asked."""

import inspect
from typing import Any

import pytest

from tests.broker_process import BrokerProcess
from tests.contract.cases import ANSWERED, REFUSED
from tests.contract.doors import DOORS, Answer, Case, Refusal, by_hand


async def _ask(door: Any, broker: BrokerProcess, case: Case) -> Any:
    outcome = door(broker, case)
    return await outcome if inspect.isawaitable(outcome) else outcome


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
async def test_every_door_gives_the_same_answer(broker: BrokerProcess, case: Case) -> None:
    expected = by_hand(broker, case)
    assert isinstance(expected, Answer), expected
    for hits, _, code in expected.queries:
        assert code == 0
        assert case.hits is None or len(hits) == case.hits
        assert [hit[4] for hit in hits] == sorted((hit[4] for hit in hits), reverse=True)
    for name, door in DOORS.items():
        assert await _ask(door, broker, case) == expected, name


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_every_door_refuses_alike(broker: BrokerProcess, case: Case) -> None:
    expected = by_hand(broker, case)
    assert isinstance(expected, Refusal), expected
    assert expected.code == case.code
    for name, door in DOORS.items():
        found = await _ask(door, broker, case)
        assert isinstance(found, Refusal), (name, found)
        assert (found.code, found.retriable) == (expected.code, expected.retriable), name
        assert found.message in ("", expected.message), name
