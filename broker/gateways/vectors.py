"""The index of a topic over REST."""

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from broker.gateways.authentication import access_of
from broker.gateways.documents import NO_PARAMETERS, errors
from broker.gateways.topics import TopicPath

if TYPE_CHECKING:
    from broker.services import Services


def vector_routes(services: "Services") -> APIRouter:
    """`/v1/topics/{topic}/vector`."""
    router = APIRouter(tags=["index"], dependencies=[NO_PARAMETERS])

    @router.get(
        "/v1/topics/{topic}/vector",
        summary="The state of a topic's index",
        response_model=dict[str, Any],
        responses=errors(404),
    )
    async def status(topic: TopicPath, request: Request) -> JSONResponse:
        return JSONResponse(await services.search.status(topic, access_of(request)))

    return router
