"""DeleteTopics (20): by name, from version 6 also by id."""

from collections import Counter
from collections.abc import Iterator

from broker.context import RequestContext
from broker.operations import Operation
from broker.registry import api
from broker.security.access import Access
from broker.throttle import MutationQuota
from broker.topics import Topics
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DeleteTopicsRequest, DeleteTopicsResponse

FIRST_VERSION_WITH_TOPIC_IDS = 6
NO_ID = bytes(16)
STRICT_QUOTA_FROM = 5
FORBIDDEN = ErrorCode.TOPIC_AUTHORIZATION_FAILED
UNKNOWN_NAME = "This server does not host this topic-partition."
UNKNOWN_ID = "This server does not host this topic ID."

_Result = DeleteTopicsResponse.DeletableTopicResult


@api(ApiKey.DELETE_TOPICS, versions=(1, 6))
def handle(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    """Each topic on its own: one that fails does not stop the others. Data is gone when the answer is sent."""
    topics = context.services.topics
    if context.api_version < FIRST_VERSION_WITH_TOPIC_IDS:
        asked: list[tuple[str | None, bytes]] = [(name, NO_ID) for name in request.topic_names]
    else:
        asked = [(topic.name, topic.topic_id) for topic in request.topics]
    quota = MutationQuota(context, STRICT_QUOTA_FROM)
    responses = list(_delete(topics, context.access, quota, asked))
    return DeleteTopicsResponse(throttle_time_ms=quota.wait_ms, responses=responses)


def _delete(
    topics: Topics, access: Access, quota: MutationQuota, asked: list[tuple[str | None, bytes]]
) -> Iterator[_Result]:
    names = Counter(name for name, topic_id in asked if name is not None and topic_id == NO_ID)
    ids = Counter(topic_id for name, topic_id in asked if name is None and topic_id != NO_ID)
    for name, topic_id in asked:
        if name is None and topic_id == NO_ID:
            yield _failed(name, topic_id, ErrorCode.INVALID_REQUEST, "Neither topic name nor id were specified.")
        elif name is not None and topic_id != NO_ID:
            yield _failed(
                name, topic_id, ErrorCode.INVALID_REQUEST, "You may not specify both topic name and topic id."
            )
    doubly = "The provided topic name maps to an ID that was already supplied."
    for name, count in names.items():
        known = topics.get(name)
        if count > 1:
            yield _failed(name, NO_ID, ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
        elif not access.topic(Operation.DESCRIBE if known is None else Operation.DELETE, name):
            yield _failed(name, NO_ID, FORBIDDEN, FORBIDDEN.text)
        elif known is None:
            yield _failed(name, NO_ID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_NAME)
        elif known.topic_id in ids:
            del ids[known.topic_id]
            yield _failed(name, known.topic_id, ErrorCode.INVALID_REQUEST, doubly)
        else:
            yield _deleted(topics, quota, name)
    for topic_id, count in ids.items():
        yield _delete_by_id(topics, access, quota, topic_id, count)


def _delete_by_id(topics: Topics, access: Access, quota: MutationQuota, topic_id: bytes, count: int) -> _Result:
    known = topics.get_by_id(topic_id)
    if count > 1:
        return _failed(None, topic_id, ErrorCode.INVALID_REQUEST, "Duplicate topic id.")
    if known is None:
        return _failed(None, topic_id, ErrorCode.UNKNOWN_TOPIC_ID, UNKNOWN_ID)
    if not access.topic(Operation.DELETE, known.name):
        shown = known.name if access.topic(Operation.DESCRIBE, known.name) else None
        return _failed(shown, topic_id, FORBIDDEN, FORBIDDEN.text)
    return _deleted(topics, quota, known.name)


def _deleted(topics: Topics, quota: MutationQuota, name: str) -> _Result:
    try:
        known = topics.get(name)
        quota.take(0 if known is None else len(known.partitions))
        return _Result(name=name, topic_id=topics.delete(name).topic_id)
    except KafkaError as error:
        return _failed(name, NO_ID, error.code, error.message)


def _failed(name: str | None, topic_id: bytes, code: ErrorCode, message: str) -> _Result:
    return _Result(name=name, topic_id=topic_id, error_code=code, error_message=message)
