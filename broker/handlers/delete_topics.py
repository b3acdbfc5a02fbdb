"""DeleteTopics (20): by name, from version 6 also by id."""

from collections import Counter
from collections.abc import Iterator

from broker.context import RequestContext
from broker.registry import api
from broker.topics import Topics
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DeleteTopicsRequest, DeleteTopicsResponse

FIRST_VERSION_WITH_TOPIC_IDS = 6
NO_ID = bytes(16)
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
    return DeleteTopicsResponse(responses=list(_delete(topics, asked)))


def _delete(topics: Topics, asked: list[tuple[str | None, bytes]]) -> Iterator[_Result]:
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
        elif known is None:
            yield _failed(name, NO_ID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_NAME)
        elif known.topic_id in ids:
            del ids[known.topic_id]
            yield _failed(name, known.topic_id, ErrorCode.INVALID_REQUEST, doubly)
        else:
            yield _deleted(topics, name)
    for topic_id, count in ids.items():
        known = topics.get_by_id(topic_id)
        if count > 1:
            yield _failed(None, topic_id, ErrorCode.INVALID_REQUEST, "Duplicate topic id.")
        elif known is None:
            yield _failed(None, topic_id, ErrorCode.UNKNOWN_TOPIC_ID, UNKNOWN_ID)
        else:
            yield _deleted(topics, known.name)


def _deleted(topics: Topics, name: str) -> _Result:
    try:
        return _Result(name=name, topic_id=topics.delete(name).topic_id)
    except KafkaError as error:
        return _failed(name, NO_ID, error.code, error.message)


def _failed(name: str | None, topic_id: bytes, code: ErrorCode, message: str) -> _Result:
    return _Result(name=name, topic_id=topic_id, error_code=code, error_message=message)
