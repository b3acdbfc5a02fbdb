"""The gRPC door: `senselog.v1.VectorSearch`, with health and reflection, on the broker's own event loop.

Only `broker.app` imports this, when the door is to open: gRPC brings 15 MB of native code.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from senselog_client.v1 import vector_search_pb2 as messages
from senselog_client.v1 import vector_search_pb2_grpc as stubs

from broker.config import format_address
from broker.gateways.authentication import authenticate
from broker.gateways.limit import MAX_BODY_BYTES, REQUESTS_MAX
from broker.gateways.rpc_errors import abort
from broker.gateways.rpc_translate import (
    batch_response,
    failures_options,
    failures_response,
    index_status,
    search_request,
    single_response,
)
from broker.security.access import Access
from broker.security.logins import WrongCredentials
from protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from broker.services import Services

SERVICE = messages.DESCRIPTOR.services_by_name["VectorSearch"].full_name
# `serve` has 5 s for a clean stop in all; calls still running get this much of it.
_DRAIN_S = 1.0
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.max_send_message_length", -1),  # the search service bounds what hits carry
    ("grpc.so_reuseport", 0),  # gRPC's default lets a second broker take half of the calls
)

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
logger = structlog.get_logger(__name__)


class _VectorSearch(stubs.VectorSearchServicer):
    """Each method translates; the search service does the work."""

    def __init__(self, services: "Services") -> None:
        self._services = services

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802 - the names of the .proto
        return await self._answer(context, request.topic, lambda: self._search(request, context))

    async def BatchSearch(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, request.topic, lambda: self._batch_search(request, context))

    async def GetIndexStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, request, lambda: self._status(request, context))

    async def ListFailures(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, request, lambda: self._failures(request, context))

    async def Retry(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._command("retry", request, context)

    async def Pause(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._command("pause", request, context)

    async def Resume(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._command("resume", request, context)

    async def Reembed(self, request: Any, context: Any) -> Any:  # noqa: N802
        options = {field.name: value for field, value in request.ListFields() if field.name != "topic"}
        return await self._command("reembed", request, context, options)

    async def CutOver(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._command("cut_over", request, context)

    async def RollBack(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._command("roll_back", request, context)

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer(context, request, lambda: self._embed(request, context))

    async def _command(self, name: str, request: Any, context: Any, options: Mapping[str, Any] = NO_OPTIONS) -> Any:
        async def work() -> Any:
            search, access = self._services.search, await self._access(context)
            outcome = getattr(search.administration.by(access), name)(request.topic, **options)
            if outcome is not None:
                await outcome
            return index_status(await search.status(request.topic, access))

        return await self._answer(context, request, work)

    async def _failures(self, request: Any, context: Any) -> Any:
        administration = self._services.search.administration.by(await self._access(context))
        return failures_response(administration.failures(request.topic, **failures_options(request)))

    async def _embed(self, request: Any, context: Any) -> Any:
        by = request.WhichOneof("by")
        administration = self._services.search.administration.by(await self._access(context))
        model, vectors = await administration.embed(
            list(request.texts),
            topic=request.topic if by == "topic" else None,
            model=request.model if by == "model" else None,
        )
        return messages.EmbedResponse(model=model, vectors=[messages.Vector(values=vector) for vector in vectors])

    async def _search(self, request: Any, context: Any) -> Any:
        wanted = search_request(request.topic, [request.query], request.options, context.time_remaining())
        return single_response(await self._services.search.search(wanted, await self._access(context)))

    async def _batch_search(self, request: Any, context: Any) -> Any:
        if not request.queries:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "queries: at least one is needed")
        wanted = search_request(request.topic, request.queries, request.options, context.time_remaining())
        return batch_response(await self._services.search.search(wanted, await self._access(context)))

    async def _status(self, request: Any, context: Any) -> Any:
        return index_status(await self._services.search.status(request.topic, await self._access(context)))

    async def _access(self, context: Any) -> Access:
        """Of the metadata `authorization`; raises WrongCredentials."""
        given = dict(context.invocation_metadata() or ()).get("authorization")
        return await authenticate(self._services, given, peer_host(context.peer()))

    async def _answer(self, context: Any, asked: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await work()
        except KafkaError as error:
            client, topic = context.peer(), str(asked).strip()[:200]
            self._services.refusals.warning("call refused", client=client, topic=topic, error=str(error))
            await abort(context, error)
        except WrongCredentials as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except Exception as error:
            logger.exception("call failed", client=context.peer())
            message = f"an unexpected {type(error).__name__}; the broker's log has more"
            await context.abort(grpc.StatusCode.INTERNAL, message)


def peer_host(peer: str) -> str:
    """Of gRPC's `ipv4:127.0.0.1:40000` or `ipv6:%5B::1%5D:40000`."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


class RpcServer:
    """A running gRPC door; `host` and `port` are the bound ones."""

    def __init__(self, server: Any, health_servicer: Any, host: str, port: int) -> None:
        self._server = server
        self._health = health_servicer
        self.host = host
        self.port = port

    async def close(self) -> None:
        """Says that it is not serving any more, lets running calls end for a moment, cancels the others."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(_DRAIN_S)


def _add_port(server: Any, address: str, pem: bytes | None) -> int:
    """Raises RuntimeError."""
    if pem is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, grpc.ssl_server_credentials([(pem, pem)])))


async def start_rpc(services: "Services", host: str, port: int, pem: bytes | None = None) -> RpcServer:
    """Serves on `host:port` (0: a free port), over TLS with `pem`: key, certificate and its chain. Raises OSError."""
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=REQUESTS_MAX)
    stubs.add_VectorSearchServicer_to_server(_VectorSearch(services), server)  # type: ignore[no-untyped-call]
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        bound = _add_port(server, format_address(host, port), pem)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {format_address(host, port)} for gRPC: {error}") from None
    await server.start()
    for name in ("", SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return RpcServer(server, servicer, host, bound)
