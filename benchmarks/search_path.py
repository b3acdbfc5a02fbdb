"""From record to hit: freshness, what indexing costs produce, embedding throughput, search latency with its recall."""

import itertools
import json
import math
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import confluent_kafka
import httpx
import numpy as np
from senselog_client import SenselogClient

from benchmarks import frames, librdkafka
from benchmarks.brokers import ROOT, Broker
from benchmarks.loads import percentile, topic_name
from benchmarks.raw_client import replay
from benchmarks.report import Result

DATA = Path(os.environ.get("SENSELOG_DATA_SETS", ROOT.parent / "shared" / "data"))
WAIT_S = 900
VECTORS = {"vector.enabled": "true"}
MODES: dict[str, dict[str, Any]] = {
    "vector": {},
    "text": {"mode": "text"},
    "hybrid": {"mode": "hybrid"},
    "hybrid by scores": {"mode": "hybrid", "fusion": "weighted"},
}
QUERIES = 100
_asked = itertools.count()
SHARES = (1.0, 0.1, 0.01, 0.001)
"""Of the log's offsets, that a filter lets through."""


def producer(broker: Broker, settings: Mapping[str, Any] = MappingProxyType({})) -> confluent_kafka.Producer:
    """An idempotent librdkafka producer that sends at once; `settings` of librdkafka come on top."""
    common = {"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "enable.idempotence": True}
    return confluent_kafka.Producer({**common, **settings})


def status(broker: Broker, topic: str) -> dict[str, Any]:
    """The vector status of a topic, over HTTP."""
    answer = httpx.get(f"http://{broker.http}/v1/topics/{topic}/vector", timeout=30)
    answer.raise_for_status()
    return dict(answer.json())


def wait_indexed(broker: Broker, topic: str, records: int) -> None:
    """Waits until indexed + skipped + failed records of the topic reach `records`; raises TimeoutError after 15 minutes."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        partitions = status(broker, topic)["partitions"]
        if sum(partition["indexed_offset"] for partition in partitions) >= records:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{topic}: not indexed after {WAIT_S} s")


def freshness(broker: Broker, *, records: int) -> Result:
    """Ack of a record to that very offset returned by a search for its text, on an idle broker, one at a time."""
    topic = topic_name("freshness")
    librdkafka.create_topic(broker.bootstrap, topic, 1, **VECTORS)
    send = producer(broker)
    seen: list[float] = []
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        for index in range(records + 20):
            text = f"connection {index} of worker {index * 7919 % 1000} to the database was refused after {index % 60} seconds"
            acked: list[tuple[int, float]] = []
            send.produce(
                topic,
                value=text,
                on_delivery=lambda _, message, to=acked: to.append((message.offset(), time.perf_counter())),
            )
            send.flush()
            offset, acked_at = acked[0]
            result = client.search(
                topic,
                text,
                limit=1,
                min_offsets={0: offset + 1},
                max_wait_ms=5_000,
                filter={"min_offset": offset},
                timeout_ms=10_000,
            )
            found_at = time.perf_counter()
            if [hit.offset for hit in result] != [offset]:
                raise RuntimeError(f"offset {offset} not found: {[hit.offset for hit in result]}")
            seen.append((found_at - acked_at) * 1e3)
    seen = seen[20:]
    figures = {
        "p50 ms": statistics.median(seen),
        "p99 ms": percentile(seen, 0.99),
        "max ms": max(seen),
        "records": float(records),
    }
    return Result("freshness by own offset, idle", broker.name, figures)


def produce_cost(broker: Broker, *, rounds: int, requests: int) -> Result:
    """Produce round trip (p50) with indexing on against off, the two in turn, at 100 records a second of indexing load."""
    topics = {}
    for name, configs in (("off", {}), ("on", VECTORS)):
        topics[name] = topic_name(f"indexing-{name}")
        librdkafka.create_topic(broker.bootstrap, topics[name], 1, **configs)
    batch = bytes(frames.record_batch(1, 100))
    medians: dict[str, list[float]] = {"off": [], "on": []}
    for _, name in itertools.product(range(rounds), ("off", "on")):
        encoded = [frames.produce_frame(topics[name], 0, batch)]
        run = replay(broker.bootstrap, encoded, depth=1, requests=requests, check=frames.check_produce())
        medians[name].append(statistics.median(run.round_trips_s) * 1e6)
    off, on = statistics.median(medians["off"]), statistics.median(medians["on"])
    figures = {"p50 µs off": off, "p50 µs on": on, "ratio on/off": on / off}
    return Result("produce round trip, indexing on/off", broker.name, figures)


def log_lines() -> list[bytes]:
    """The real log lines of the loghub sets, in file order."""
    paths = sorted((DATA / "loghub").glob("*.log"))
    if not paths:
        raise FileNotFoundError(
            f"no log lines in {DATA / 'loghub'}: set SENSELOG_DATA_SETS to the folder with loghub and scifact"
        )
    return [line for path in paths for line in path.read_bytes().splitlines()]


def log_search(broker: Broker) -> list[Result]:
    """Distinct log lines a second through the whole path (produced, embedded, searchable), then search over them."""
    topic = topic_name("loghub")
    librdkafka.create_topic(broker.bootstrap, topic, 1, **VECTORS)
    lines, send = log_lines(), producer(broker)
    started = time.perf_counter()
    for line in lines:
        send.produce(topic, value=line)
        send.poll(0)
    send.flush()
    wait_indexed(broker, topic, len(lines))
    seconds = time.perf_counter() - started
    distinct = sorted({line for line in lines if line.strip()})
    rates = {
        "records/s": len(lines) / seconds,
        "distinct texts/s": len(distinct) / seconds,
        "distinct texts": float(len(distinct)),
    }
    queries = [line.decode() for line in distinct[:: len(distinct) // QUERIES + 1]]
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        searches = [_selectivity(client, broker, topic, queries, len(lines), share) for share in SHARES]
    ways = status(broker, topic)["partitions"][0]["searches"]
    served = Result("how segments of log lines were searched", broker.name, {way: float(n) for way, n in ways.items()})
    return [Result("embed real log lines", broker.name, rates), *searches, served]


def scifact() -> tuple[list[dict[str, str]], list[dict[str, str]], dict[str, dict[str, int]]]:
    """Corpus, queries and judgements of SciFact."""
    read = lambda name: [json.loads(line) for line in (DATA / "scifact" / name).read_text().splitlines()]  # noqa: E731
    judgements: dict[str, dict[str, int]] = {}
    for line in (DATA / "scifact" / "qrels-test.tsv").read_text().splitlines()[1:]:
        query, document, score = line.split("\t")
        judgements.setdefault(query, {})[document] = int(score)
    return read("corpus.jsonl"), read("queries.jsonl"), judgements


def ndcg(ranked: list[str], relevant: dict[str, int]) -> float:
    """nDCG@10 of one query."""
    gain = sum(relevant.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(ranked[:10]))
    best = sorted(relevant.values(), reverse=True)[:10]
    return gain / sum(score / math.log2(rank + 2) for rank, score in enumerate(best))


def offset_ranges(records: int, share: float, count: int) -> Iterator[tuple[int, int]]:
    """`count` offset ranges of `share` of the log, spread over it."""
    width = max(int(records * share), 1)
    for index in range(count):
        start = (records - width) * index // max(count - 1, 1)
        yield start, start + width


def retrieval(broker: Broker) -> list[Result]:
    """SciFact through the broker: nDCG@10, then latency beside recall@10 against exact search at several selectivities."""
    topic = topic_name("scifact")
    # As the model's published figure (0.645) is made: what it reads of a text, not its pieces.
    librdkafka.create_topic(broker.bootstrap, topic, 1, **VECTORS, **{"vector.long.text": "truncate"})
    corpus, queries, judgements = scifact()
    send = producer(broker)
    for document in corpus:
        send.produce(topic, key=document["_id"], value=f"{document['title']} {document['text']}")
        send.poll(0)
    send.flush()
    wait_indexed(broker, topic, len(corpus))
    results = []
    with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
        wanted = [query for query in queries if query["_id"] in judgements]
        figures = {"queries": float(len(wanted))}
        for name, options in MODES.items():
            scores = []
            for query in wanted:
                hits = client.search(
                    topic, query["text"], limit=10, latest=True, max_wait_ms=5_000, timeout_ms=10_000, **options
                )
                scores.append(ndcg([(hit.key or b"").decode() for hit in hits], judgements[query["_id"]]))
            figures[f"nDCG@10 {name}"] = float(np.mean(scores))
        results.append(Result("SciFact retrieval", broker.name, figures))
        texts = [query["text"] for query in wanted[:QUERIES]]
        results += [_selectivity(client, broker, topic, texts, len(corpus), share) for share in SHARES]
    return results


def _selectivity(
    client: SenselogClient, broker: Broker, topic: str, texts: list[str], records: int, share: float
) -> Result:
    found = wanted = 0
    latencies: dict[str, list[float]] = {"with embedding": [], "exact": [], "embedded before": []}
    blanks = " " * (1 + SHARES.index(share))  # the same to the model, and a text that was not asked before
    for text, (start, until) in zip(texts, offset_ranges(records, share, len(texts)), strict=True):
        options: dict[str, Any] = {"limit": 10, "filter": {"min_offset": start, "max_offset": until - 1}, "include": ()}
        answers = {}
        for name, millis in latencies.items():
            started = time.perf_counter()
            answer = client.search(topic, text + blanks, exact=name == "exact", **options)
            millis.append((time.perf_counter() - started) * 1e3)
            answers[name] = {hit.offset for hit in answer}
        hits, exact = answers["with embedding"], answers["exact"]
        if len(hits) != min(10, until - start):
            raise RuntimeError(f"{len(hits)} hits of {min(10, until - start)} matches")
        found, wanted = found + len(hits & exact), wanted + len(exact)
    figures = {
        "recall@10": found / wanted,
        "p50 ms (with embedding)": statistics.median(latencies["with embedding"]),
        "p99 ms (with embedding)": percentile(latencies["with embedding"], 0.99),
        "p50 ratio to exact": statistics.median(latencies["embedded before"]) / statistics.median(latencies["exact"]),
    }
    return Result(f"search {topic.split('-')[1]}, {share:.1%} of the offsets", broker.name, figures)


def search_under_load(broker: Broker, *, topic: str, clients: int, seconds: float) -> Result:
    """Searches a second and their latency with several clients at once."""
    latencies: list[float] = []
    stop = time.monotonic() + seconds

    def run() -> None:
        with SenselogClient(bootstrap_servers=broker.bootstrap) as client:
            while time.monotonic() < stop:
                text = f"connection {next(_asked)} refused by the database"  # one that was asked before is not embedded again
                started = time.perf_counter()
                client.search(topic, text, limit=10)
                latencies.append((time.perf_counter() - started) * 1e3)

    threads = [threading.Thread(target=run, name=f"searcher-{index}") for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = {
        "searches/s": len(latencies) / seconds,
        "p50 ms": statistics.median(latencies),
        "p99 ms": percentile(latencies, 0.99),
    }
    return Result(f"search, {clients} clients", broker.name, figures)
