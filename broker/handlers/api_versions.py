"""ApiVersions (18): what this broker speaks, from the API table alone."""

import re

from broker.context import RequestContext
from broker.features import FEATURES
from broker.registry import APIS, api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ApiVersionsRequest, ApiVersionsResponse

# KIP-511: names and versions that can be labels of a metric.
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_SOFTWARE_VERSION = 3
# Clients of before v4 fail on a feature whose lowest level is 0 (KAFKA-17011).
_LEVEL_ZERO_FROM = 4


@api(ApiKey.API_VERSIONS, versions=(0, 4))
def handle(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Lists every registered API; the same table before and after authentication."""
    if context.api_version >= _SOFTWARE_VERSION:
        name, version = request.client_software_name, request.client_software_version
        if not (_SOFTWARE.fullmatch(name) and _SOFTWARE.fullmatch(version)):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        context.connection.client_software_name = name
        context.connection.client_software_version = version
    features = context.services.features
    return ApiVersionsResponse(
        finalized_features_epoch=features.epoch,
        api_keys=[
            ApiVersionsResponse.ApiVersion(
                api_key=entry.key, min_version=entry.advertised_from, max_version=entry.max_version
            )
            for entry in sorted(APIS.values(), key=lambda entry: entry.key)
        ],
        supported_features=[
            ApiVersionsResponse.SupportedFeatureKey(
                name=feature.name, min_version=feature.lowest, max_version=feature.highest
            )
            for feature in FEATURES.values()
            if feature.lowest or context.api_version >= _LEVEL_ZERO_FROM
        ],
        finalized_features=[
            ApiVersionsResponse.FinalizedFeatureKey(
                name=name, min_version_level=features.level(name), max_version_level=features.level(name)
            )
            for name in FEATURES
            if features.level(name)  # as in Kafka, a feature of level 0 is none
        ],
    )
