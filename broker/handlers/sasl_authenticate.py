"""SaslAuthenticate (36): this broker's listener asks for no authentication yet."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import SaslAuthenticateRequest, SaslAuthenticateResponse


@api(ApiKey.SASL_AUTHENTICATE, versions=(0, 2))
def handle(
    context: RequestContext,  # noqa: ARG001 - the signature of a handler
    request: SaslAuthenticateRequest,  # noqa: ARG001
) -> SaslAuthenticateResponse:
    """What Kafka answers on a PLAINTEXT listener; the connection goes on."""
    return SaslAuthenticateResponse(
        error_code=ErrorCode.ILLEGAL_SASL_STATE,
        error_message="SaslAuthenticate request received after successful authentication",
    )
