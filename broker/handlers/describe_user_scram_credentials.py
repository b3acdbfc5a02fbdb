"""DescribeUserScramCredentials (50): who has a credential of which mechanism; never the credential itself (KIP-554)."""

from collections import Counter

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.users import ScramUsers
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse

_Result = DescribeUserScramCredentialsResponse.DescribeUserScramCredentialsResult
_Info = DescribeUserScramCredentialsResponse.CredentialInfo


@api(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, versions=(0, 0))
def handle(
    context: RequestContext, request: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    """Null or no names: everybody. Errors per user: 91 unknown, 92 named twice; 31 for all."""
    if not context.access.cluster(Operation.DESCRIBE):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        nobody = [_Result(error_code=code, error_message=None) for _ in request.users or ()]  # Kafka's own form
        return DescribeUserScramCredentialsResponse(error_code=code, error_message=None, results=nobody)
    users = context.services.security.users
    times = Counter(user.name for user in request.users or ())
    names = list(times) or users.names()
    return DescribeUserScramCredentialsResponse(
        error_message="", results=[_described(users, name, times[name]) for name in names]
    )


def _described(users: ScramUsers, name: str, times: int) -> _Result:
    if times > 1:
        text = f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
        return _Result(user=name, error_code=ErrorCode.DUPLICATE_RESOURCE, error_message=text)
    credentials = users.of_user(name)
    if not credentials:
        text = f"Attempt to describe a user credential that does not exist: {name}"
        return _Result(user=name, error_code=ErrorCode.RESOURCE_NOT_FOUND, error_message=text)
    infos = [_Info(mechanism=mechanism, iterations=one.iterations) for mechanism, one in sorted(credentials.items())]
    return _Result(user=name, error_message="", credential_infos=infos)
