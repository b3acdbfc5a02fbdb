"""SaslHandshake (17): this broker's listener asks for no authentication yet."""

from broker.context import RequestContext
from broker.registry import api
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import SaslHandshakeRequest, SaslHandshakeResponse


@api(ApiKey.SASL_HANDSHAKE, versions=(0, 1))
def handle(
    context: RequestContext,  # noqa: ARG001 - the signature of a handler
    request: SaslHandshakeRequest,  # noqa: ARG001
) -> SaslHandshakeResponse:
    """What Kafka answers on a PLAINTEXT listener; the connection goes on."""
    return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE, mechanisms=[])
