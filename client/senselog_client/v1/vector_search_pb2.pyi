from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_VECTOR: _ClassVar[Mode]
    MODE_TEXT: _ClassVar[Mode]
    MODE_HYBRID: _ClassVar[Mode]

class Fusion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUSION_RRF: _ClassVar[Fusion]
    FUSION_WEIGHTED: _ClassVar[Fusion]

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_READ_COMMITTED: _ClassVar[Isolation]
    ISOLATION_READ_UNCOMMITTED: _ClassVar[Isolation]
MODE_VECTOR: Mode
MODE_TEXT: Mode
MODE_HYBRID: Mode
FUSION_RRF: Fusion
FUSION_WEIGHTED: Fusion
ISOLATION_READ_COMMITTED: Isolation
ISOLATION_READ_UNCOMMITTED: Isolation

class SearchRequest(_message.Message):
    __slots__ = ("topic", "query", "options")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    query: Query
    options: SearchOptions
    def __init__(self, topic: _Optional[_Union[Topic, _Mapping]] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("topic", "queries", "options")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    options: SearchOptions
    def __init__(self, topic: _Optional[_Union[Topic, _Mapping]] = ..., queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class Topic(_message.Message):
    __slots__ = ("name", "id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: bytes
    def __init__(self, name: _Optional[str] = ..., id: _Optional[bytes] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("text", "vector", "record", "examples")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: Vector
    record: RecordId
    examples: Examples
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., record: _Optional[_Union[RecordId, _Mapping]] = ..., examples: _Optional[_Union[Examples, _Mapping]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class RecordId(_message.Message):
    __slots__ = ("partition", "offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Example(_message.Message):
    __slots__ = ("text", "vector", "record")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: Vector
    record: RecordId
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., record: _Optional[_Union[RecordId, _Mapping]] = ...) -> None: ...

class Examples(_message.Message):
    __slots__ = ("positive", "negative")
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    positive: _containers.RepeatedCompositeFieldContainer[Example]
    negative: _containers.RepeatedCompositeFieldContainer[Example]
    def __init__(self, positive: _Optional[_Iterable[_Union[Example, _Mapping]]] = ..., negative: _Optional[_Iterable[_Union[Example, _Mapping]]] = ...) -> None: ...

class SearchOptions(_message.Message):
    __slots__ = ("mode", "limit", "partitions", "offset_ranges", "from_timestamp_ms", "until_timestamp_ms", "filter", "min_similarity", "collapse", "min_offsets", "latest", "max_wait_ms", "partial_ok", "isolation", "include", "max_value_bytes", "exact", "ef", "cursor", "fusion", "vector_weight")
    MODE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_RANGES_FIELD_NUMBER: _ClassVar[int]
    FROM_TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    COLLAPSE_FIELD_NUMBER: _ClassVar[int]
    MIN_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_OK_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    limit: int
    partitions: _containers.RepeatedScalarFieldContainer[int]
    offset_ranges: _containers.RepeatedCompositeFieldContainer[OffsetRange]
    from_timestamp_ms: int
    until_timestamp_ms: int
    filter: str
    min_similarity: float
    collapse: str
    min_offsets: _containers.RepeatedCompositeFieldContainer[MinOffset]
    latest: bool
    max_wait_ms: int
    partial_ok: bool
    isolation: Isolation
    include: Include
    max_value_bytes: int
    exact: bool
    ef: int
    cursor: bytes
    fusion: Fusion
    vector_weight: float
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ..., limit: _Optional[int] = ..., partitions: _Optional[_Iterable[int]] = ..., offset_ranges: _Optional[_Iterable[_Union[OffsetRange, _Mapping]]] = ..., from_timestamp_ms: _Optional[int] = ..., until_timestamp_ms: _Optional[int] = ..., filter: _Optional[str] = ..., min_similarity: _Optional[float] = ..., collapse: _Optional[str] = ..., min_offsets: _Optional[_Iterable[_Union[MinOffset, _Mapping]]] = ..., latest: _Optional[bool] = ..., max_wait_ms: _Optional[int] = ..., partial_ok: _Optional[bool] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., include: _Optional[_Union[Include, _Mapping]] = ..., max_value_bytes: _Optional[int] = ..., exact: _Optional[bool] = ..., ef: _Optional[int] = ..., cursor: _Optional[bytes] = ..., fusion: _Optional[_Union[Fusion, str]] = ..., vector_weight: _Optional[float] = ...) -> None: ...

class OffsetRange(_message.Message):
    __slots__ = ("partition", "from_offset", "until_offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    UNTIL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    from_offset: int
    until_offset: int
    def __init__(self, partition: _Optional[int] = ..., from_offset: _Optional[int] = ..., until_offset: _Optional[int] = ...) -> None: ...

class MinOffset(_message.Message):
    __slots__ = ("partition", "offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Include(_message.Message):
    __slots__ = ("key", "value", "headers", "vector", "scores")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    key: bool
    value: bool
    headers: bool
    vector: bool
    scores: bool
    def __init__(self, key: _Optional[bool] = ..., value: _Optional[bool] = ..., headers: _Optional[bool] = ..., vector: _Optional[bool] = ..., scores: _Optional[bool] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "next_cursor", "answer")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    next_cursor: bytes
    answer: Answer
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., next_cursor: _Optional[bytes] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("results", "answer")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResult]
    answer: Answer
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResult, _Mapping]]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class QueryResult(_message.Message):
    __slots__ = ("hits", "next_cursor", "error")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    next_cursor: bytes
    error: Error
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., next_cursor: _Optional[bytes] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "kafka_code", "message", "retriable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    KAFKA_CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRIABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    kafka_code: int
    message: str
    retriable: bool
    def __init__(self, code: _Optional[str] = ..., kafka_code: _Optional[int] = ..., message: _Optional[str] = ..., retriable: _Optional[bool] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("topic", "topic_id", "model", "complete", "partitions", "embed_micros", "wait_micros", "search_micros", "read_micros")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    EMBED_MICROS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MICROS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_MICROS_FIELD_NUMBER: _ClassVar[int]
    READ_MICROS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_id: bytes
    model: Model
    complete: bool
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionState]
    embed_micros: int
    wait_micros: int
    search_micros: int
    read_micros: int
    def __init__(self, topic: _Optional[str] = ..., topic_id: _Optional[bytes] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., complete: _Optional[bool] = ..., partitions: _Optional[_Iterable[_Union[PartitionState, _Mapping]]] = ..., embed_micros: _Optional[int] = ..., wait_micros: _Optional[int] = ..., search_micros: _Optional[int] = ..., read_micros: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "dimensions", "metric", "generation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimensions: int
    metric: str
    generation: int
    def __init__(self, name: _Optional[str] = ..., dimensions: _Optional[int] = ..., metric: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class PartitionState(_message.Message):
    __slots__ = ("partition", "log_start_offset", "high_watermark", "last_stable_offset", "indexed_offset", "lag_ms", "failed", "searched", "error_code")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LOG_START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    HIGH_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LAST_STABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    INDEXED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    log_start_offset: int
    high_watermark: int
    last_stable_offset: int
    indexed_offset: int
    lag_ms: int
    failed: int
    searched: bool
    error_code: int
    def __init__(self, partition: _Optional[int] = ..., log_start_offset: _Optional[int] = ..., high_watermark: _Optional[int] = ..., last_stable_offset: _Optional[int] = ..., indexed_offset: _Optional[int] = ..., lag_ms: _Optional[int] = ..., failed: _Optional[int] = ..., searched: _Optional[bool] = ..., error_code: _Optional[int] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("partition", "offset", "leader_epoch", "timestamp_ms", "score", "similarity", "text_score", "vector_rank", "text_rank", "duplicates", "embedding_truncated", "chunk", "value_truncated", "key", "value", "headers", "vector")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCORE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_RANK_FIELD_NUMBER: _ClassVar[int]
    TEXT_RANK_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    VALUE_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    leader_epoch: int
    timestamp_ms: int
    score: float
    similarity: float
    text_score: float
    vector_rank: int
    text_rank: int
    duplicates: int
    embedding_truncated: bool
    chunk: bool
    value_truncated: bool
    key: bytes
    value: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    vector: Vector
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., leader_epoch: _Optional[int] = ..., timestamp_ms: _Optional[int] = ..., score: _Optional[float] = ..., similarity: _Optional[float] = ..., text_score: _Optional[float] = ..., vector_rank: _Optional[int] = ..., text_rank: _Optional[int] = ..., duplicates: _Optional[int] = ..., embedding_truncated: _Optional[bool] = ..., chunk: _Optional[bool] = ..., value_truncated: _Optional[bool] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class GetIndexStatusRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class IndexRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class ReembedRequest(_message.Message):
    __slots__ = ("topic", "model", "field", "dimensions", "long_text", "metric", "cutover")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    LONG_TEXT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CUTOVER_FIELD_NUMBER: _ClassVar[int]
    topic: str
    model: str
    field: str
    dimensions: int
    long_text: str
    metric: str
    cutover: str
    def __init__(self, topic: _Optional[str] = ..., model: _Optional[str] = ..., field: _Optional[str] = ..., dimensions: _Optional[int] = ..., long_text: _Optional[str] = ..., metric: _Optional[str] = ..., cutover: _Optional[str] = ...) -> None: ...

class ListFailuresRequest(_message.Message):
    __slots__ = ("topic", "partition", "generation", "after", "limit")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    generation: int
    after: RecordId
    limit: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., generation: _Optional[int] = ..., after: _Optional[_Union[RecordId, _Mapping]] = ..., limit: _Optional[int] = ...) -> None: ...

class ListFailuresResponse(_message.Message):
    __slots__ = ("total", "failures", "next")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    total: int
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    next: RecordId
    def __init__(self, total: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., next: _Optional[_Union[RecordId, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("partition", "offset", "records", "reason", "model", "generation", "failed_at_ms")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    records: int
    reason: str
    model: str
    generation: int
    failed_at_ms: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., records: _Optional[int] = ..., reason: _Optional[str] = ..., model: _Optional[str] = ..., generation: _Optional[int] = ..., failed_at_ms: _Optional[int] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "topic", "model")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    topic: str
    model: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., topic: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("model", "vectors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    def __init__(self, model: _Optional[str] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ...) -> None: ...

class IndexStatus(_message.Message):
    __slots__ = ("topic", "topic_id", "enabled", "state", "reason", "model", "lag", "lag_ms", "rate_per_s", "eta_s", "progress", "indexed", "skipped", "failed", "segments", "saved_by_dedupe", "memory_bytes", "disk_bytes", "sampled_recall_at_10", "embedder", "partitions", "workers")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    RATE_PER_S_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SAVED_BY_DEDUPE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_RECALL_AT_10_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_id: bytes
    enabled: bool
    state: str
    reason: str
    model: Model
    lag: int
    lag_ms: int
    rate_per_s: float
    eta_s: float
    progress: float
    indexed: int
    skipped: int
    failed: int
    segments: int
    saved_by_dedupe: int
    memory_bytes: int
    disk_bytes: int
    sampled_recall_at_10: float
    embedder: Embedder
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionStatus]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, topic: _Optional[str] = ..., topic_id: _Optional[bytes] = ..., enabled: _Optional[bool] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., lag: _Optional[int] = ..., lag_ms: _Optional[int] = ..., rate_per_s: _Optional[float] = ..., eta_s: _Optional[float] = ..., progress: _Optional[float] = ..., indexed: _Optional[int] = ..., skipped: _Optional[int] = ..., failed: _Optional[int] = ..., segments: _Optional[int] = ..., saved_by_dedupe: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., sampled_recall_at_10: _Optional[float] = ..., embedder: _Optional[_Union[Embedder, _Mapping]] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("state", "restarts", "address", "memory_bytes", "memory_limit_bytes")
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    state: str
    restarts: int
    address: str
    memory_bytes: int
    memory_limit_bytes: int
    def __init__(self, state: _Optional[str] = ..., restarts: _Optional[int] = ..., address: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ...) -> None: ...

class Embedder(_message.Message):
    __slots__ = ("calls", "texts_embedded", "queries_embedded", "tokens", "tokens_estimated", "cache_hits", "retries", "poisoned", "trouble")
    CALLS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    QUERIES_EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    POISONED_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    calls: int
    texts_embedded: int
    queries_embedded: int
    tokens: int
    tokens_estimated: bool
    cache_hits: int
    retries: int
    poisoned: int
    trouble: str
    def __init__(self, calls: _Optional[int] = ..., texts_embedded: _Optional[int] = ..., queries_embedded: _Optional[int] = ..., tokens: _Optional[int] = ..., tokens_estimated: _Optional[bool] = ..., cache_hits: _Optional[int] = ..., retries: _Optional[int] = ..., poisoned: _Optional[int] = ..., trouble: _Optional[str] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("offsets", "state", "indexed", "skipped", "segments", "memory_bytes", "disk_bytes", "rate_per_s", "eta_s", "progress", "saved_by_dedupe", "sampled_recall_at_10", "worker")
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    RATE_PER_S_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SAVED_BY_DEDUPE_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_RECALL_AT_10_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    offsets: PartitionState
    state: str
    indexed: int
    skipped: int
    segments: int
    memory_bytes: int
    disk_bytes: int
    rate_per_s: float
    eta_s: float
    progress: float
    saved_by_dedupe: int
    sampled_recall_at_10: float
    worker: int
    def __init__(self, offsets: _Optional[_Union[PartitionState, _Mapping]] = ..., state: _Optional[str] = ..., indexed: _Optional[int] = ..., skipped: _Optional[int] = ..., segments: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., rate_per_s: _Optional[float] = ..., eta_s: _Optional[float] = ..., progress: _Optional[float] = ..., saved_by_dedupe: _Optional[int] = ..., sampled_recall_at_10: _Optional[float] = ..., worker: _Optional[int] = ...) -> None: ...
