"""ApiVersions (18): what this broker speaks, from the API table alone."""

import re

from broker.context import RequestContext
from broker.registry import APIS, api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import ApiVersionsRequest, ApiVersionsResponse

# KIP-511: names and versions that can be labels of a metric.
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_SOFTWARE_VERSION = 3
# Clients ignore finalized features while the epoch is negative. Ours change with the program only.
_FEATURES_EPOCH = 1
_SEARCH_FEATURE, _SEARCH_LEVEL = "vector.search", 1


@api(ApiKey.API_VERSIONS, versions=(0, 4))
def handle(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Lists every registered API; the same table before and after authentication."""
    if context.api_version >= _SOFTWARE_VERSION:
        name, version = request.client_software_name, request.client_software_version
        if not (_SOFTWARE.fullmatch(name) and _SOFTWARE.fullmatch(version)):
            return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
        context.connection.client_software_name = name
        context.connection.client_software_version = version
    response = ApiVersionsResponse(
        finalized_features_epoch=_FEATURES_EPOCH,
        api_keys=[
            ApiVersionsResponse.ApiVersion(
                api_key=entry.key, min_version=entry.advertised_from, max_version=entry.max_version
            )
            for entry in sorted(APIS.values(), key=lambda entry: entry.key)
        ],
    )
    if ApiKey.VECTOR_SEARCH in APIS:
        # Apache may give key 100 away one day; the feature's name says whose it is here.
        response.supported_features = [
            ApiVersionsResponse.SupportedFeatureKey(
                name=_SEARCH_FEATURE, min_version=_SEARCH_LEVEL, max_version=_SEARCH_LEVEL
            )
        ]
        response.finalized_features = [
            ApiVersionsResponse.FinalizedFeatureKey(
                name=_SEARCH_FEATURE, min_version_level=_SEARCH_LEVEL, max_version_level=_SEARCH_LEVEL
            )
        ]
    return response
