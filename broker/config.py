"""The broker's configuration: flat dotted keys, as in Kafka's `server.properties`."""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from vector.embed.endpoint import HttpEndpoint

_ENDPOINT = "vector.http."
_LISTENER = "listener.name."
# What may differ between listeners. Users do not: HTTP and gRPC have the same ones.
_OF_LISTENERS = ("ssl.", "sasl.enabled.mechanisms", "sasl.oauthbearer.", "sasl.server.", "connections.max.reauth.ms")


class ConfigError(Exception):
    """A key that does not exist or a value that does not fit; the message names the key."""


def _dotted(attribute: str) -> str:
    return attribute.replace("_", ".")


def _attribute(key: str) -> str:
    return key.replace(".", "_")


class Config(BaseModel):
    """Every setting of one broker; `storage.sync` is the attribute `storage_sync`.

    Defaults are Kafka's unless a comment says why not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_dotted, populate_by_name=True)

    data_dir: Path = Path("data")
    listen: str = "127.0.0.1:9092"
    http_listen: str = "127.0.0.1:8092"
    grpc_listen: str | None = Field(None, description="default: 127.0.0.1:8093 if it is free")
    advertised_listen: str = Field("", description="HOST:PORT that clients are told to use; empty: the bound address")
    http_security_protocol: Literal["PLAINTEXT", "SSL"] = "PLAINTEXT"  # of gRPC too
    listeners: str = Field("", description="NAME://HOST:PORT,… in place of listen; the name says the protocol")
    advertised_listeners: str = Field("", description="NAME://HOST:PORT,… that clients are told; empty: as bound")
    listener_security_protocol_map: str = Field("", description="NAME:PROTOCOL,… for listeners of other names")
    listener_name: dict[str, "Config"] = Field({}, description="what a listener has differently, whole, by its name")
    node_id: int = Field(1, ge=0)

    socket_request_max_bytes: int = Field(100 * 1024 * 1024, ge=1024)
    connections_max_idle_ms: int = Field(600_000, ge=1)
    # Kafka has no limit; this one, and what `broker.descriptors` makes of it, leave descriptors for the segments.
    max_connections: int = Field(10_000, ge=1)
    fetch_max_bytes: int = Field(55 * 1024 * 1024, ge=1024)

    # Kafka's default type is JKS, a format of Java's.
    ssl_keystore_type: Literal["PEM", "PKCS12"] = "PEM"
    ssl_keystore_location: Path | None = Field(None, description="file: private key, certificate and its chain")
    ssl_keystore_password: SecretStr | None = Field(None, description="of PKCS12")
    ssl_key_password: SecretStr | None = Field(None, description="of an encrypted key in PEM")
    ssl_truststore_type: Literal["PEM", "PKCS12"] = "PEM"
    ssl_truststore_location: Path | None = Field(None, description="file: authorities that sign clients")
    ssl_truststore_password: SecretStr | None = Field(None, description="of PKCS12")
    ssl_client_auth: Literal["none", "requested", "required"] = "none"
    ssl_enabled_protocols: str = "TLSv1.2,TLSv1.3"
    ssl_principal_mapping_rules: str = "DEFAULT"
    # Kafka's default is GSSAPI, which is not offered.
    sasl_enabled_mechanisms: str = "SCRAM-SHA-256,SCRAM-SHA-512"
    sasl_plain_users_file: Path | None = Field(None, description="lines of NAME=PASSWORD")
    sasl_oauthbearer_jwks_endpoint_url: str = Field("", description="https://… or file:///…, the keys of tokens")
    sasl_oauthbearer_jwks_endpoint_refresh_ms: int = Field(3_600_000, ge=1000)
    sasl_oauthbearer_expected_audience: str = Field("", description="one of them must be in the token")
    sasl_oauthbearer_expected_issuer: str = ""
    sasl_oauthbearer_sub_claim_name: str = "sub"
    sasl_oauthbearer_clock_skew_seconds: int = Field(30, ge=0)
    # Kafka's default is 512 KiB: in ten thousand connections of strangers 5 GB.
    sasl_server_max_receive_size: int = Field(64 * 1024, ge=1024)
    connections_max_reauth_ms: int = Field(0, ge=0)
    connection_failed_authentication_delay_ms: int = Field(100, ge=0)
    quota_window_num: int = Field(11, ge=1)
    quota_window_size_seconds: int = Field(1, ge=1)
    authorizer_class_name: Literal["", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"] = ""
    super_users: str = Field("", description="User:NAME;…, whom no ACL binds")
    allow_everyone_if_no_acl_found: bool = False

    auto_create_topics_enable: bool = True
    num_partitions: int = Field(1, ge=1)
    # Defaults of topics; each can be changed for one topic.
    log_retention_ms: int | None = Field(None, ge=-1)
    log_retention_bytes: int = Field(-1, ge=-1)
    log_segment_bytes: int = Field(1 << 30, ge=1 << 20)
    message_max_bytes: int = Field(1_048_588, ge=0)
    group_initial_rebalance_delay_ms: int = Field(3000, ge=0)
    group_min_session_timeout_ms: int = Field(6000, ge=1)
    group_max_session_timeout_ms: int = Field(1_800_000, ge=1)
    group_max_size: int = Field(2**31 - 1, ge=1)
    group_consumer_session_timeout_ms: int = Field(45_000, ge=1)
    group_consumer_min_session_timeout_ms: int = Field(45_000, ge=1)
    group_consumer_max_session_timeout_ms: int = Field(60_000, ge=1)
    group_consumer_heartbeat_interval_ms: int = Field(5000, ge=1)
    group_consumer_min_heartbeat_interval_ms: int = Field(5000, ge=1)
    group_consumer_max_heartbeat_interval_ms: int = Field(15_000, ge=1)
    group_consumer_assignment_interval_ms: int = Field(1000, ge=0)
    group_consumer_min_assignment_interval_ms: int = Field(0, ge=0)
    group_consumer_max_assignment_interval_ms: int = Field(15_000, ge=0)
    group_consumer_max_size: int = Field(2**31 - 1, ge=1)
    group_consumer_assignors: list[Literal["uniform", "range"]] = Field(["uniform", "range"], min_length=1)
    group_consumer_migration_policy: Literal["bidirectional", "upgrade", "downgrade", "disabled"] = "bidirectional"
    offset_metadata_max_bytes: int = Field(4096, ge=0)
    offsets_retention_minutes: int = Field(10_080, ge=1)
    offsets_retention_check_interval_ms: int = Field(600_000, ge=1)
    offsets_topic_num_partitions: int = Field(50, ge=1)
    transaction_max_timeout_ms: int = Field(900_000, ge=1)
    transaction_state_log_num_partitions: int = Field(50, ge=1)
    transactional_id_expiration_ms: int = Field(7 * 24 * 3_600_000, ge=1)

    storage_sync: Literal["always", "interval", "os"] = "always"
    # Not `storage.sync.interval.ms`: in TOML a key cannot be a value and a table.
    storage_flush_interval_ms: int = Field(1000, ge=1, description="how often storage.sync=interval syncs")
    storage_wal_file_bytes: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    storage_checkpoint_bytes: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    storage_checkpoint_interval_ms: int = Field(30_000, ge=100)
    storage_min_free_bytes: int = Field(256 * 1024 * 1024, ge=0)
    storage_objects_url: str | None = Field(
        None,
        pattern="^(s3|gs|az|file)://",
        description="where vector indexes are kept beside this disk: s3://, gs://, az://, file://",
    )
    producer_id_expiration_ms: int = Field(24 * 3_600_000, ge=1)
    log_cleaner_dedupe_buffer_size: int = Field(
        128 * 1024 * 1024, ge=1024 * 1024, description="memory in which compaction keeps the keys of one run"
    )
    log_cleaner_io_max_bytes_per_second: float | None = Field(
        None, gt=0, description="what compaction reads and writes at most; by default it only leaves others their share"
    )

    vector_workers: int = Field(
        1, ge=0, le=64, description="processes here that share the partitions of topics with vectors"
    )
    # Not `vector.workers.remote`: in TOML a key cannot be a value and a table.
    vector_remote_workers: int = Field(0, ge=0, le=64, description="more of them, on other machines: senselog worker")
    vector_worker_listen: str | None = Field(None, description="HOST:PORT where those come, with TLS")
    vector_worker_ssl_keystore_location: Path | None = Field(
        None, description="PEM file: key, certificate and chain; default: ssl.keystore.location"
    )
    vector_worker_ssl_truststore_location: Path | None = Field(
        None, description="PEM file: authorities that sign workers, and nobody else"
    )
    vector_worker_memory_bytes: int | None = Field(
        None, ge=1024 * 1024, description="of indexes in each worker; beyond it indexing pauses; default: no limit"
    )
    vector_embedding_model: str = Field("local:all-MiniLM-L6-v2", description="of topics that name none")
    vector_embedding_threads: int = Field(0, ge=0, le=256, description="cores for the local model; 0: all")
    vector_model_dir: Path | None = Field(None, description="local models; default: $SENSELOG_MODEL_DIR or .models")
    vector_openai_base_url: str | None = Field(None, description="any server with OpenAI's embeddings API")
    vector_openai_api_key_file: Path | None = Field(None, description="holds the key; default: $OPENAI_API_KEY")
    vector_openai_timeout_ms: int = Field(30_000, ge=1)
    vector_http: dict[str, HttpEndpoint] = Field({}, description="servers that topics name as http:NAME")

    @model_validator(mode="after")
    def _workers_have_places(self) -> Self:
        if not self.workers:
            raise ValueError("vector.workers and vector.remote.workers are both 0: somebody must index")
        if self.vector_remote_workers and self.vector_worker_listen is None:
            raise ValueError("vector.remote.workers needs vector.worker.listen")
        return self

    @property
    def workers(self) -> int:
        """Of vectors, here and elsewhere."""
        return self.vector_workers + self.vector_remote_workers

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for key in ("session_timeout_ms", "heartbeat_interval_ms", "assignment_interval_ms"):
            low, value, high = (getattr(self, f"group_consumer_{bound}{key}") for bound in ("min_", "", "max_"))
            if not low <= value <= high:
                name = _dotted(key)
                raise ValueError(
                    f"group.consumer.{name} must be between group.consumer.min.{name} and group.consumer.max.{name}"
                )
        return self

    @classmethod
    def load(cls, file: Path | None = None, settings: Iterable[str] = (), **overrides: Any) -> Self:
        """Merges, weakest first: a TOML file, attributes given by flags (None: not given), `key=value` settings.

        Raises ConfigError, naming the key, for an unknown key, a value that does not fit, or an unreadable file.
        """
        values: dict[str, Any] = _read_toml(file) if file is not None else {}
        values |= {_dotted(name): value for name, value in overrides.items() if value is not None}
        for setting in settings:
            key, separator, value = setting.partition("=")
            if not separator or not key.strip():
                raise ConfigError(f"--set {setting}: expected key=value")
            values[key.strip()] = value.strip()
        values, endpoints = _by_name(values, _ENDPOINT, "tei.url")
        if endpoints:
            named = {name: {_attribute(key): own[key] for key in own} for name, own in endpoints.items()}
            values["vector.http"] = named
        values, listeners = _by_name(values, _LISTENER, "external.ssl.client.auth")
        config = cls._validate(values)
        at = {name.lower(): cls._at_listener(values, name, own) for name, own in listeners.items()}
        return config.model_copy(update={"listener_name": at})

    @classmethod
    def _at_listener(cls, values: Mapping[str, Any], name: str, own: Mapping[str, Any]) -> Self:
        for key in own:
            if key in cls._keys() and not key.startswith(_OF_LISTENERS):
                raise ConfigError(f"{_LISTENER}{name}.{key}: is the same for all listeners")
        return cls._validate({**values, **own}, f"{_LISTENER}{name}.")

    @classmethod
    def _keys(cls) -> Collection[str]:
        return {_dotted(name) for name in cls.model_fields} - {_LISTENER.removesuffix(".")}

    @classmethod
    def _validate(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        for key in values:
            if key not in cls._keys():
                raise ConfigError(f"unknown configuration key {prefix + key!r}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if not key:  # several together
                raise ConfigError(first["msg"].removeprefix("Value error, ")) from None
            raise ConfigError(f"{prefix}{key}: {first['msg']} (got {first['input']!r})") from None

    def at(self, listener: str) -> "Config":
        """The settings of one listener: with its `listener.name.NAME.KEY` in place of KEY."""
        return self.listener_name.get(listener.lower(), self)


def _by_name(values: Mapping[str, Any], prefix: str, example: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All but the keys of the form `PREFIX.NAME.KEY`, and those by NAME and KEY; raises ConfigError."""
    others = {key: value for key, value in values.items() if not key.startswith(prefix)}
    named: dict[str, dict[str, Any]] = {}
    for key in values.keys() - others.keys():
        name, separator, rest = key.removeprefix(prefix).partition(".")
        if not separator:
            raise ConfigError(f"{key}: expected {prefix}NAME.KEY, such as {prefix}{example}")
        named.setdefault(name, {})[rest] = values[key]
    return others, named


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return dict(_flatten(tomllib.loads(file.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """TOML reads `storage.sync = "os"` as nested tables; keys here are flat."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def parse_address(address: str) -> tuple[str, int]:
    """Splits `HOST:PORT` (`[::1]:9092` for IPv6); raises ConfigError."""
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
