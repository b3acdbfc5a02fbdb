"""UpdateFeatures: what clients are told to use, durably; the oracle has Kafka's refusals step by step."""

import pytest

from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ApiVersionsRequest, ConsumerGroupHeartbeatRequest, UpdateFeaturesRequest
from tests.unit.broker.admin import Admin

UP, DOWN = 1, 2


def update(admin: Admin, *wanted: tuple[str, int, int], version: int = 1, validate_only: bool = False) -> int:
    updates = [
        UpdateFeaturesRequest.FeatureUpdateKey(feature=name, max_version_level=level, upgrade_type=kind)
        for name, level, kind in wanted
    ]
    request = UpdateFeaturesRequest(feature_updates=updates, validate_only=validate_only)
    return int(admin.ask(ApiKey.UPDATE_FEATURES, version, request).error_code)


def finalized(admin: Admin) -> tuple[int, dict[str, int]]:
    request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
    answer = admin.ask(ApiKey.API_VERSIONS, 4, request)
    levels = {feature.name: feature.max_version_level for feature in answer.finalized_features}
    return answer.finalized_features_epoch, levels


@pytest.fixture
def admin() -> Admin:
    return Admin()


def test_a_change_is_told_to_clients_and_survives_a_crash(admin: Admin) -> None:
    """The epoch grows with it: clients keep what they heard at the highest."""
    epoch, before = finalized(admin)
    assert before == {"group.version": 1, "transaction.version": 2, "vector.search": 1}
    assert update(admin, ("transaction.version", 1, DOWN), validate_only=True) == 0
    assert update(admin, ("transaction.version", 2, UP)) == 0
    assert finalized(admin) == (epoch, before)
    assert update(admin, ("transaction.version", 1, DOWN)) == 0
    admin.crash()
    assert finalized(admin) == (epoch + 1, before | {"transaction.version": 1})
    assert update(admin, ("transaction.version", 2, UP)) == 0
    assert finalized(admin) == (epoch + 2, before)


def test_all_updates_of_a_request_or_none(admin: Admin) -> None:
    before = finalized(admin)
    wanted = [("transaction.version", 1, DOWN), ("no.such.feature", 1, UP)]
    assert update(admin, *wanted) == ErrorCode.INVALID_UPDATE_VERSION
    assert finalized(admin) == before


def test_without_its_feature_the_consumer_group_protocol_is_refused(admin: Admin) -> None:
    """And a feature of level 0 is not listed."""
    assert update(admin, ("group.version", 0, DOWN)) == 0
    assert "group.version" not in finalized(admin)[1]
    answer = admin.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, ConsumerGroupHeartbeatRequest(group_id="g"))
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
