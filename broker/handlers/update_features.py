"""UpdateFeatures (57): sets which levels of features clients use, all of them or none (KIP-584)."""

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import UpdateFeaturesRequest, UpdateFeaturesResponse

_Result = UpdateFeaturesResponse.UpdatableFeatureResult
# From here on the results say nothing that the top-level error does not.
_NO_RESULTS_FROM = 2
_FAILED = "The update failed for all features since the following feature had an error: "


@api(ApiKey.UPDATE_FEATURES, versions=(0, 2))
def handle(context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse:
    """In force and durable when the answer is sent; v1 also only validates."""
    if not context.access.cluster(Operation.ALTER):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return UpdateFeaturesResponse(error_code=code, error_message=code.text, results=[])
    features, levels = context.services.features, dict[str, int]()
    try:
        for update in request.feature_updates:
            features.check(update.feature, update.max_version_level, update.upgrade_type)
            levels[update.feature] = update.max_version_level
        if not request.validate_only:
            features.change(levels)
    except KafkaError as error:
        invalid = error.code == ErrorCode.INVALID_UPDATE_VERSION
        message = f"{_FAILED}{error.message}" if invalid else error.message
        return UpdateFeaturesResponse(
            error_code=ErrorCode.FEATURE_UPDATE_FAILED if not invalid else error.code, error_message=message, results=[]
        )
    results = [
        _Result(feature=update.feature, error_code=ErrorCode.NONE, error_message=ErrorCode.NONE.name)
        for update in (request.feature_updates if context.api_version < _NO_RESULTS_FROM else ())
    ]
    return UpdateFeaturesResponse(error_message=None, results=results)
