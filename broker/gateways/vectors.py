"""The index of a topic over REST: its state, and what people do with it. Also: vectors of texts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.gateways.authentication import access_of
from broker.gateways.body import Offset, PartitionId, Strict
from broker.gateways.documents import NO_PARAMETERS, errors
from broker.gateways.topics import TopicPath
from broker.search.administration import EMBED_TEXTS_MAX, FAILURES_MAX, VectorAdministration

if TYPE_CHECKING:
    from broker.services import Services


Handler = TypeVar("Handler", bound=Callable[..., Any])


class FailureParameters(BaseModel):
    """Which failures; `after_*` are the two numbers of the last page's `next`."""

    model_config = ConfigDict(extra="forbid")

    partition: PartitionId | None = None
    generation: int | None = Field(None, ge=1, le=2**31 - 1)
    after_partition: PartitionId | None = None
    after_offset: Offset | None = None
    limit: int = Field(100, ge=1, le=FAILURES_MAX)

    @model_validator(mode="after")
    def _both(self) -> "FailureParameters":
        if (self.after_partition is None) != (self.after_offset is None):
            raise ValueError("give after_partition and after_offset, or neither")
        return self


class FailedRecordAnswer(BaseModel):
    topic: str
    topic_id: str
    generation: int
    partition: int
    offset: int
    records: int = Field(description="from offset on; above 1 only where a whole batch cannot be decoded")
    reason: str
    model: str | None
    failed_at_ms: int


class FailuresAnswer(BaseModel):
    topic: str
    total: int
    failures: list[FailedRecordAnswer]
    next: tuple[int, int] | None = Field(description="after_partition and after_offset of the next page")


class ReembedBody(Strict):
    """What is to change; what is left out stays. Nothing at all: the index is built anew as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "openai:text-embedding-3-small", "cutover": "auto"}]}
    )

    model: str | None = None
    field: str | None = Field(None, examples=["$.message"])
    dimensions: int | None = Field(None, ge=0, le=65_536)
    metric: Literal["cosine", "dot", "l2"] | None = None
    long_text: Literal["chunk", "truncate", "skip"] | None = None
    cutover: Literal["auto", "manual"] | None = Field(None, description="manual: the old one is searched until cutover")


class EmbedBody(Strict):
    """Texts, and whose model: the topic's, or one by name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": ["disk is full"], "topic": "logs"}]})

    texts: list[str] = Field(description=f"1 to {EMBED_TEXTS_MAX}")  # checked behind every door
    topic: str | None = None
    model: str | None = None


class EmbedAnswer(BaseModel):
    model: str
    vectors: list[list[float]]


class Accepted(BaseModel):
    topic: str


def vector_routes(services: "Services") -> APIRouter:
    """`/v1/topics/{topic}/vector…` and `/v1/embed`."""
    router = APIRouter(tags=["index"])
    _add_reading(router, services)
    _add_changing(router, services)

    @router.post(
        "/v1/embed",
        summary="Vectors of texts, as queries are embedded",
        response_model=EmbedAnswer,
        responses=errors(404, 409, 504),
        dependencies=[NO_PARAMETERS],
    )
    async def embed(body: EmbedBody, request: Request) -> JSONResponse:
        model, vectors = await services.search.administration.by(access_of(request)).embed(
            body.texts, topic=body.topic, model=body.model
        )
        return JSONResponse({"model": model, "vectors": vectors})

    return router


def _add_reading(router: APIRouter, services: "Services") -> None:
    @router.get(
        "/v1/topics/{topic}/vector",
        summary="The state of a topic's index",
        response_model=dict[str, Any],
        responses=errors(404),
        dependencies=[NO_PARAMETERS],
    )
    async def status(topic: TopicPath, request: Request) -> JSONResponse:
        return JSONResponse(await services.search.status(topic, access_of(request)))

    @router.get(
        "/v1/topics/{topic}/vector/failures",
        summary="Records that could not be indexed, and why",
        description="The same as the records of the topic `__vector_failures`, without those that are mended.",
        response_model=FailuresAnswer,
        responses=errors(404, 409),
    )
    async def failures(
        topic: TopicPath, request: Request, which: Annotated[FailureParameters, Query()]
    ) -> JSONResponse:
        after = None
        if which.after_partition is not None and which.after_offset is not None:
            after = (which.after_partition, which.after_offset)
        page = services.search.administration.by(access_of(request)).failures(
            topic,
            partition=which.partition,
            generation=which.generation,
            after=after,
            limit=which.limit,
        )
        return JSONResponse(page)


def _add_changing(router: APIRouter, services: "Services") -> None:
    def administration(request: Request) -> VectorAdministration:
        return services.search.administration.by(access_of(request))

    def route(name: str, summary: str, description: str | None = None) -> Callable[[Handler], Handler]:
        return router.post(
            f"/v1/topics/{{topic}}/vector/{name}",
            summary=summary,
            description=description,
            response_model=Accepted,
            responses=errors(404, 409, 504),
            dependencies=[NO_PARAMETERS],
        )

    @route(
        "retry",
        "Try again to index what failed",
        "The index is built anew beside the live one; what is known keeps its vectors.",
    )
    async def retry(topic: TopicPath, request: Request) -> JSONResponse:
        await administration(request).retry(topic)
        return JSONResponse({"topic": topic})

    @route("pause", "Stop indexing, over restarts too")
    async def pause(topic: TopicPath, request: Request) -> JSONResponse:
        administration(request).pause(topic)
        return JSONResponse({"topic": topic})

    @route("resume", "Go on indexing")
    async def resume(topic: TopicPath, request: Request) -> JSONResponse:
        await administration(request).resume(topic)
        return JSONResponse({"topic": topic})

    @route("reembed", "Build the next generation of the index from the log", "The state shows how far it is.")
    async def reembed(topic: TopicPath, request: Request, body: ReembedBody) -> JSONResponse:
        await administration(request).reembed(topic, **body.model_dump())
        return JSONResponse({"topic": topic})

    @route("cutover", "Search the generation that is being built, complete or not")
    async def cutover(topic: TopicPath, request: Request) -> JSONResponse:
        await administration(request).cut_over(topic)
        return JSONResponse({"topic": topic})

    @route("rollback", "Search the previous generation again, as soon as it has caught up")
    async def rollback(topic: TopicPath, request: Request) -> JSONResponse:
        await administration(request).roll_back(topic)
        return JSONResponse({"topic": topic})
