"""uvicorn inside a running loop: a free port, an answer, a clean stop."""

from types import SimpleNamespace

import httpx
import pytest

from broker.gateways.http import start_http
from broker.metrics import Metrics
from tests.unit.broker.admin import security_of


async def test_serves_until_closed() -> None:
    services = SimpleNamespace(metrics=Metrics(), logs=SimpleNamespace(failed=None), security=security_of())
    server = await start_http(services, "127.0.0.1", 0)
    url = f"http://{server.host}:{server.port}/healthz"
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200
        await server.close()
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_taken_port_is_an_os_error() -> None:
    services = SimpleNamespace(metrics=Metrics(), logs=SimpleNamespace(failed=None), security=security_of())
    server = await start_http(services, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await start_http(services, server.host, server.port)
    await server.close()
