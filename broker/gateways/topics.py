"""Topics over REST: list, create, describe, configure, delete. The handlers of Kafka's own APIs do the work."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from broker.configs.changes import Operation
from broker.configs.definition import ConfigResource, ConfigSource, ConfigType
from broker.gateways.body import Strict
from broker.gateways.documents import NO_PARAMETERS, errors
from broker.gateways.in_process import InProcessClient, check
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
    ListOffsetsRequest,
    MetadataRequest,
)

if TYPE_CHECKING:
    from broker.services import Services

EARLIEST, LATEST = -2, -1
TopicPath = Annotated[str, Path(description="The topic's name.", examples=["logs"])]
ConfigValue = str | bool | int | float


class NewTopic(Strict):
    """A topic to create."""

    name: str = Field(examples=["logs"])
    partitions: int = Field(-1, ge=-1, le=2**31 - 1, description="-1: the broker's num.partitions")
    configs: dict[str, ConfigValue] = Field(
        {}, description="as in Kafka; searchable with vector.enabled", examples=[{"vector.enabled": True}]
    )
    validate_only: bool = Field(False, description="only say whether it could be created")


class ConfigChanges(Strict):
    """Configs to set; null unsets one, so that the broker's default holds again."""

    configs: dict[str, ConfigValue | None] = Field(
        min_length=1, examples=[{"retention.ms": 86400000, "max.message.bytes": None}]
    )


class TopicSummary(BaseModel):
    name: str
    topic_id: str
    internal: bool
    partitions: int
    vector_enabled: bool


class TopicList(BaseModel):
    topics: list[TopicSummary]


class PartitionSummary(BaseModel):
    partition: int
    leader: int
    log_start_offset: int
    high_watermark: int


class TopicDescription(BaseModel):
    name: str
    topic_id: str
    internal: bool
    vector_enabled: bool
    configs: dict[str, str | None] = Field(description="those set on the topic")
    partitions: list[PartitionSummary]


class ConfigEntry(BaseModel):
    value: str | None
    source: str
    type: str
    read_only: bool
    sensitive: bool
    documentation: str | None


class TopicConfigs(BaseModel):
    configs: dict[str, ConfigEntry]


class CreatedTopic(BaseModel):
    name: str
    topic_id: str | None
    partitions: int
    configs: dict[str, str | None]


def topic_routes(services: "Services") -> APIRouter:
    """`/v1/topics`, `/v1/topics/{topic}`, `/v1/topics/{topic}/config`."""
    router = APIRouter(tags=["topics"], dependencies=[NO_PARAMETERS])

    @router.get("/v1/topics", summary="List the topics", response_model=TopicList, responses=errors())
    async def list_topics(request: Request) -> JSONResponse:
        return JSONResponse(await Administration(InProcessClient.of(services, request)).topics())

    @router.post(
        "/v1/topics", status_code=201, summary="Create a topic", response_model=CreatedTopic, responses=errors(409)
    )
    async def create_topic(request: Request, body: Annotated[NewTopic, Body()]) -> JSONResponse:
        return JSONResponse(await Administration(InProcessClient.of(services, request)).create(body), 201)

    @router.get(
        "/v1/topics/{topic}", summary="Describe a topic", response_model=TopicDescription, responses=errors(404)
    )
    async def describe_topic(request: Request, topic: TopicPath) -> JSONResponse:
        return JSONResponse(await Administration(InProcessClient.of(services, request)).describe(topic))

    @router.delete(
        "/v1/topics/{topic}",
        status_code=204,
        summary="Delete a topic with its records and its index",
        responses=errors(404),
    )
    async def delete_topic(request: Request, topic: TopicPath) -> Response:
        await Administration(InProcessClient.of(services, request)).delete(topic)
        return Response(status_code=204)

    @router.get(
        "/v1/topics/{topic}/config",
        summary="All configs of a topic",
        response_model=TopicConfigs,
        responses=errors(404),
    )
    async def topic_configs(request: Request, topic: TopicPath) -> JSONResponse:
        return JSONResponse({"configs": await Administration(InProcessClient.of(services, request)).configs(topic)})

    @router.post(
        "/v1/topics/{topic}/config",
        summary="Change configs of a topic; the others stay as they are",
        response_model=TopicConfigs,
        responses=errors(404),
    )
    async def change_configs(request: Request, topic: TopicPath, body: ConfigChanges) -> JSONResponse:
        administration = Administration(InProcessClient.of(services, request))
        await administration.alter(topic, body)
        return JSONResponse({"configs": await administration.configs(topic)})

    return router


def _value(value: ConfigValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Administration:
    """Kafka's admin requests with JSON-able answers. Every method raises KafkaError."""

    def __init__(self, client: InProcessClient) -> None:
        self._client = client

    async def metadata(self, name: str | None = None) -> list[Any]:
        """Topics as Metadata shows them: one, or all there are."""
        wanted = None if name is None else [MetadataRequest.MetadataRequestTopic(name=name, topic_id=bytes(16))]
        request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        topics = (await self._client.send(ApiKey.METADATA, 12, request)).topics
        for topic in topics if name is not None else ():
            check(topic.error_code, f"there is no topic {name!r}" if topic.error_code == 3 else None)
        return list(topics)

    async def topics(self) -> dict[str, Any]:
        topics = sorted(await self.metadata(), key=lambda topic: str(topic.name))
        enabled = await self._described([topic.name for topic in topics], ["vector.enabled"])
        return {
            "topics": [
                {
                    "name": topic.name,
                    "topic_id": str(UUID(bytes=bytes(topic.topic_id))),
                    "internal": topic.is_internal,
                    "partitions": len(topic.partitions),
                    "vector_enabled": enabled[topic.name].get("vector.enabled", {}).get("value") == "true",
                }
                for topic in topics
            ]
        }

    async def create(self, wanted: NewTopic) -> dict[str, Any]:
        configs = [
            CreateTopicsRequest.CreatableTopicConfig(name=name, value=_value(value))
            for name, value in wanted.configs.items()
        ]
        topic = CreateTopicsRequest.CreatableTopic(
            name=wanted.name, num_partitions=wanted.partitions, replication_factor=-1, assignments=[], configs=configs
        )
        request = CreateTopicsRequest(topics=[topic], validate_only=wanted.validate_only)
        (created,) = (await self._client.send(ApiKey.CREATE_TOPICS, 7, request)).topics
        check(created.error_code, created.error_message)
        return {
            "name": created.name,
            "topic_id": None if wanted.validate_only else str(UUID(bytes=bytes(created.topic_id))),
            "partitions": created.num_partitions,
            "configs": {
                config.name: config.value
                for config in created.configs or ()
                if config.config_source == ConfigSource.TOPIC
            },
        }

    async def describe(self, name: str) -> dict[str, Any]:
        (topic,) = await self.metadata(name)
        configs = (await self._described([name]))[name]
        first, end = [await self._offsets(name, len(topic.partitions), where) for where in (EARLIEST, LATEST)]
        return {
            "name": name,
            "topic_id": str(UUID(bytes=bytes(topic.topic_id))),
            "internal": topic.is_internal,
            "vector_enabled": configs["vector.enabled"]["value"] == "true",
            "configs": {key: entry["value"] for key, entry in configs.items() if entry["source"] == "TOPIC"},
            "partitions": [
                {
                    "partition": partition.partition_index,
                    "leader": partition.leader_id,
                    "log_start_offset": first[partition.partition_index],
                    "high_watermark": end[partition.partition_index],
                }
                for partition in topic.partitions
            ],
        }

    async def _offsets(self, name: str, count: int, timestamp: int) -> dict[int, int]:
        rows = [
            ListOffsetsRequest.ListOffsetsPartition(partition_index=index, timestamp=timestamp, current_leader_epoch=-1)
            for index in range(count)
        ]
        asked = ListOffsetsRequest.ListOffsetsTopic(name=name, partitions=rows)
        request = ListOffsetsRequest(replica_id=-1, isolation_level=0, topics=[asked])
        (found,) = (await self._client.send(ApiKey.LIST_OFFSETS, 7, request)).topics
        for row in found.partitions:
            check(row.error_code)
        return {row.partition_index: row.offset for row in found.partitions}

    async def delete(self, name: str) -> None:
        topic = DeleteTopicsRequest.DeleteTopicState(name=name, topic_id=bytes(16))
        (deleted,) = (await self._client.send(ApiKey.DELETE_TOPICS, 6, DeleteTopicsRequest(topics=[topic]))).responses
        check(deleted.error_code, f"there is no topic {name!r}" if deleted.error_code == 3 else deleted.error_message)

    async def configs(self, name: str) -> dict[str, Any]:
        return (await self._described([name]))[name]

    async def _described(self, names: list[str], keys: list[str] | None = None) -> dict[str, dict[str, Any]]:
        resources = [
            DescribeConfigsRequest.DescribeConfigsResource(
                resource_type=ConfigResource.TOPIC, resource_name=name, configuration_keys=keys
            )
            for name in names
        ]
        request = DescribeConfigsRequest(resources=resources, include_documentation=keys is None)
        described = {}
        for result in (await self._client.send(ApiKey.DESCRIBE_CONFIGS, 4, request)).results:
            name = result.resource_name
            if keys is None:  # a list shows what it can
                check(result.error_code, result.error_message or f"there is no topic {name!r}")
            described[name] = {
                entry.name: {
                    "value": entry.value,
                    "source": ConfigSource(entry.config_source).name,
                    "type": ConfigType(entry.config_type).name,
                    "read_only": entry.read_only,
                    "sensitive": entry.is_sensitive,
                    "documentation": entry.documentation,
                }
                for entry in result.configs
            }
        return described

    async def alter(self, name: str, changes: ConfigChanges) -> None:
        configs = [
            IncrementalAlterConfigsRequest.AlterableConfig(
                name=key,
                config_operation=Operation.DELETE if value is None else Operation.SET,
                value=None if value is None else _value(value),
            )
            for key, value in changes.configs.items()
        ]
        resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
            resource_type=ConfigResource.TOPIC, resource_name=name, configs=configs
        )
        request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)
        (altered,) = (await self._client.send(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request)).responses
        if altered.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        check(altered.error_code, altered.error_message)
