"""With an authorizer and no ACL at all: whoever is not a super user may do nothing, by any API and any door."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.registry import Api, load_handlers
from protocol.api_keys import ApiKey
from protocol.errors import ErrorCode
from protocol.messages import (
    CreateAclsRequest,
    MetadataRequest,
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
    VectorSearchRequest,
)
from tests.broker_process import BrokerProcess, free_port
from tests.integration.raw import RawConnection
from tests.integration.secure import Certificates, start
from tests.integration.test_version_sweep import TOPIC, error_codes, minimal_request

APIS = load_handlers()
FORBIDDEN = {
    ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ErrorCode.GROUP_AUTHORIZATION_FAILED,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
# What Kafka lets everybody ask, or answers with what the client may see: nothing.
OPEN = {
    ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE, ApiKey.DESCRIBE_CLUSTER, ApiKey.LIST_GROUPS,
    ApiKey.LIST_TRANSACTIONS,
}  # fmt: skip


class Secured(BrokerProcess):
    """Strangers at `bootstrap`, users at `inside`."""

    def __init__(self, directory: Path) -> None:
        (directory / "users").write_text("admin=admin-secret\nalice=alice-secret\n")
        super().__init__(
            directory,
            f"sasl.plain.users.file={directory / 'users'}",
            "sasl.enabled.mechanisms=PLAIN",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:admin",
        )
        self.inside = f"127.0.0.1:{free_port()}"
        self.settings += (f"listeners=PLAINTEXT://{self.bootstrap},SASL_PLAINTEXT://{self.inside}",)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    process = Secured(tmp_path_factory.mktemp("broker"))
    process.start()
    yield process
    process.end()


@pytest.fixture(scope="module")
def admin(secured: Secured) -> Iterator[RawConnection]:
    with login(secured, "admin") as connection:
        connection.create_topic(TOPIC, vector_enabled="true")
        yield connection


@pytest.fixture(scope="module")
def topic_id(admin: RawConnection) -> bytes:
    request = MetadataRequest(topics=[MetadataRequest.MetadataRequestTopic(name=TOPIC)])
    found: bytes = admin.call(3, 12, request).topics[0].topic_id
    return found


def login(secured: Secured, user: str) -> RawConnection:
    connection = RawConnection(secured.inside)
    connection.call(ApiKey.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN"))
    token = f"\0{user}\0{user}-secret".encode()
    assert not connection.call(ApiKey.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token)).error_code
    return connection


@pytest.mark.parametrize("api", [api for api in APIS.values() if api.key not in OPEN], ids=lambda api: api.key.name)
def test_every_api_refuses_who_has_no_right(secured: Secured, topic_id: bytes, api: Api) -> None:
    """A handler without a check fails here, as does one that forgets some version's shape."""
    for version in {api.min_version, api.max_version}:
        with RawConnection(secured.bootstrap) as stranger:
            answer = stranger.call(api.key, version, minimal_request(api, version, topic_id))
        if api.key == ApiKey.DESCRIBE_LOG_DIRS and version < 3:
            assert answer.results == []
        else:
            assert FORBIDDEN & set(error_codes(answer)), answer


def test_search_needs_read(secured: Secured, admin: RawConnection, topic_id: bytes) -> None:
    """Key 100: DESCRIBE is not enough, READ is."""
    search = VectorSearchRequest(topic_name=TOPIC, queries=[VectorSearchRequest.Query(text="x")])
    for operation, allowed in ((8, False), (3, True)):
        acl = CreateAclsRequest.AclCreation(
            resource_type=2, resource_name=TOPIC, resource_pattern_type=3, principal="User:alice", host="*",
            operation=operation, permission_type=3,
        )  # fmt: skip
        assert not admin.call(ApiKey.CREATE_ACLS, 3, CreateAclsRequest(creations=[acl])).results[0].error_code
        with login(secured, "alice") as alice:
            code = alice.call(ApiKey.VECTOR_SEARCH, 0, search).error_code
            assert (code != ErrorCode.TOPIC_AUTHORIZATION_FAILED) is allowed, code


def rest(secured: Secured, method: str, path: str, user: str = "", body: Any = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{user}-secret".encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://{secured.http}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=20) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def test_rest_knows_the_same_users_and_rights(secured: Secured, admin: RawConnection) -> None:
    """401 for strangers and for wrong passwords, 403 for users without the right, and the handlers' own answers."""
    topic = {"name": "by-rest"}
    status, headers = rest(secured, "POST", "/v1/topics", body=topic)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="senselog", charset="UTF-8"')
    assert rest(secured, "POST", "/v1/topics", user="nobody", body=topic)[0] == 401
    assert rest(secured, "POST", "/v1/topics", user="alice", body=topic)[0] == 403
    assert rest(secured, "POST", "/v1/topics", user="admin", body=topic)[0] == 201
    assert rest(secured, "POST", "/v1/topics/by-rest/search", body={"query": "x"})[0] == 401
    assert rest(secured, "POST", "/v1/topics/by-rest/search", user="alice", body={"query": "x"})[0] == 403
    assert rest(secured, "GET", "/v1/topics/by-rest/vector", user="alice")[0] == 403
    assert rest(secured, "GET", "/healthz")[0] == 200


def test_http_and_grpc_over_tls_know_the_users_too(tmp_path: Path) -> None:
    """One certificate for all doors; a password never has to travel in clear."""
    import grpc
    from senselog_client.v1 import vector_search_pb2 as messages
    from senselog_client.v1 import vector_search_pb2_grpc as stubs

    certificates = Certificates.make(tmp_path)
    (tmp_path / "users").write_text("alice=alice-secret\n")
    broker = start(
        tmp_path,
        "SASL_SSL",
        *certificates.settings(),
        "sasl.enabled.mechanisms=PLAIN",
        f"sasl.plain.users.file={tmp_path / 'users'}",
        "http.security.protocol=SSL",
    )
    try:
        context = ssl.create_default_context(cafile=certificates.authority)
        url = f"https://{broker.http}/v1/topics"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, context=context, timeout=20)
        with refused.value:
            assert refused.value.code == 401
        authorization = "Basic " + base64.b64encode(b"alice:alice-secret").decode()
        asked = urllib.request.Request(url, headers={"Authorization": authorization})
        with urllib.request.urlopen(asked, context=context, timeout=20) as response:
            assert response.status == 200
        trusted = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        with grpc.secure_channel(broker.grpc, trusted) as channel:
            stub = stubs.VectorSearchStub(channel)  # type: ignore[no-untyped-call]
            wanted = messages.GetIndexStatusRequest(topic="none")
            for metadata, code in (
                ((), grpc.StatusCode.UNAUTHENTICATED),
                ((("authorization", authorization),), grpc.StatusCode.NOT_FOUND),
            ):
                with pytest.raises(grpc.RpcError) as error:
                    stub.GetIndexStatus(wanted, metadata=metadata, timeout=20)
                assert error.value.code() == code
    finally:
        broker.end()


async def test_the_client_library_logs_in(secured: Secured, admin: RawConnection) -> None:
    """kafka-python's and aiokafka's own settings; who may not read is told so."""
    from senselog_client import AsyncSenselogClient, SearchError, SenselogClient

    def settings(user: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": secured.inside,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": user,
            "sasl_plain_password": f"{user}-secret",
        }

    admin.create_topic("by-client", vector_enabled="true")
    with SenselogClient(**settings("admin")) as client:
        assert client.status("by-client").freshness
    with SenselogClient(**settings("alice")) as client, pytest.raises(SearchError) as refused:
        client.status("by-client")
    assert refused.value.code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    async with AsyncSenselogClient(**settings("admin")) as client:
        assert (await client.status("by-client")).freshness
