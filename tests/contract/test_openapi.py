"""Generated requests, right and wrong, get only documented answers; `make openapi` sends 10,000 of them."""

from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess
from tests.contract import openapi


@pytest.mark.slow
def test_generated_requests_get_documented_answers(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path, "storage.sync=os")
    broker.start()
    try:
        openapi.prepare(broker)
        answers = openapi.run(broker, cases=300, chance=1)
    finally:
        broker.end()
    assert {status for _, status in answers} >= {200, 201, 400, 404}
