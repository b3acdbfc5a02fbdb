"""AlterUserScramCredentials (51): clients send salted passwords; what is kept cannot be turned back into them (KIP-554)."""

from collections import Counter

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.scram import ITERATIONS_MAX, ITERATIONS_MIN, Credential, ScramMechanism
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse

_Result = AlterUserScramCredentialsResponse.AlterUserScramCredentialsResult
_Upsertion = AlterUserScramCredentialsRequest.ScramCredentialUpsertion
_Deletion = AlterUserScramCredentialsRequest.ScramCredentialDeletion


@api(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, versions=(0, 0))
def handle(context: RequestContext, request: AlterUserScramCredentialsRequest) -> AlterUserScramCredentialsResponse:
    """Errors per user: 31, 33, 91, 92, 93; the sound changes of a request are all durable when it is answered."""
    asked: list[_Upsertion | _Deletion] = [*request.deletions, *request.upsertions]
    times = Counter(change.name for change in asked)
    if not context.access.cluster(Operation.ALTER):
        refusal = KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
        return AlterUserScramCredentialsResponse(results=[_result(name, refusal) for name in times])
    users = context.services.security.users
    changes: dict[tuple[str, ScramMechanism], Credential | None] = {}
    results: dict[str, _Result] = {}
    for change in asked:
        name = change.name
        try:
            mechanism = _mechanism(change, times[name])
            if isinstance(change, _Upsertion):
                changes[name, mechanism] = _credential(mechanism, change)
            elif users.get(name, mechanism) is None:
                text = "Attempt to delete a user credential that does not exist"
                results[name] = _result(name, KafkaError(ErrorCode.RESOURCE_NOT_FOUND, text))
                continue
            else:
                changes[name, mechanism] = None
        except KafkaError as error:
            results[name] = _result(name, error)
        else:
            results[name] = _Result(user=name, error_message=None)
    if changes:
        users.change(changes)
    return AlterUserScramCredentialsResponse(results=list(results.values()))


def _result(name: str, error: KafkaError) -> _Result:
    text = None if error.code is ErrorCode.UNKNOWN_SERVER_ERROR else error.message
    return _Result(user=name, error_code=error.code, error_message=text)


def _mechanism(change: _Upsertion | _Deletion, times: int) -> ScramMechanism:
    if times > 1:
        raise KafkaError(ErrorCode.DUPLICATE_RESOURCE, "A user credential cannot be altered twice in the same request")
    if not change.name:
        raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty")
    if change.mechanism not in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        raise KafkaError(ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism")
    return ScramMechanism(change.mechanism)


def _credential(mechanism: ScramMechanism, change: _Upsertion) -> Credential:
    if change.iterations < ITERATIONS_MIN:
        raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations")
    if change.iterations > ITERATIONS_MAX:
        raise KafkaError(ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations")
    if not change.salted_password:  # Java has no HMAC with an empty key
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    return Credential.of_salted(mechanism, bytes(change.salted_password), bytes(change.salt), change.iterations)
