"""`make bench`: Senselog's own figures, or the broker's loads against any broker given by `--bootstrap` and `--pid`."""

import argparse
import os
import sys
from collections.abc import Callable

from rich.console import Console

from benchmarks import large_groups, loads, scale, search_path
from benchmarks.brokers import Broker, client_cores, senselog
from benchmarks.doors import doors
from benchmarks.report import Result, show

PAGE_CACHE = ("storage.sync=os",)
SECTIONS = ("broker", "durable", "groups", "scale", "search", "doors")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--bootstrap", help="measure this broker instead of a fresh Senselog (broker section only)")
    parser.add_argument("--pid", type=int, help="its process id, for its CPU seconds")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full load (default 1)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args()


def durable(scale: float) -> list[Result]:
    """Acks with an ack meaning synced."""
    with senselog(("storage.sync=always",)) as broker:
        count = max(int(60_000 * scale), 1_000)
        return [
            loads.acks(broker, connections=100, requests=count, label="synced"),
            loads.acks(broker, connections=1, requests=count // 10, label="synced"),
        ]


def groups(scale: float) -> list[Result]:
    """Rebalances of large groups."""
    with senselog((*PAGE_CACHE, *large_groups.SETTINGS)) as broker:
        return large_groups.rebalances(broker, scale=scale)


def search(scale: float) -> list[Result]:
    """The path from record to hit, with the local model and every core."""
    with senselog(PAGE_CACHE, pin=False) as broker:
        results = [
            search_path.freshness(broker, records=max(int(500 * scale), 50)),
            search_path.produce_cost(broker, rounds=5, requests=max(int(1_000 * scale), 100)),
            *search_path.log_search(broker),
            *search_path.retrieval(broker),
        ]
        topic = search_path.topic_name("search")
        search_path.librdkafka.create_topic(broker.bootstrap, topic, 1, **search_path.VECTORS)
        send = search_path.producer(broker)
        lines = search_path.log_lines()[:2_000]
        for line in lines:
            send.produce(topic, value=line)
        send.flush()
        search_path.wait_indexed(broker, topic, len(lines))
        results += [
            search_path.search_under_load(broker, topic=topic, clients=clients, seconds=5 * scale) for clients in (1, 8)
        ]
    return results


def main() -> int:
    """Runs the chosen sections and shows their figures."""
    chosen = arguments()
    console = Console(stderr=True)
    if chosen.bootstrap:
        if not chosen.pid:
            console.print("--bootstrap needs --pid, the broker's process id, to account for its CPU seconds")
            return 2
        os.sched_setaffinity(0, client_cores())
        show(
            loads.broker_loads(Broker("broker", chosen.bootstrap, chosen.pid), scale=chosen.scale),
            title="Broker",
            as_json=chosen.json,
        )
        return 0
    results: list[Result] = []
    cores = os.sched_getaffinity(0)
    for section in chosen.only:
        console.print(f"[bold]{section}[/bold] …")
        os.sched_setaffinity(0, cores if section in ("search", "doors") else client_cores())
        run: Callable[[], list[Result]] = {
            "broker": lambda: _broker(chosen.scale),
            "durable": lambda: durable(chosen.scale),
            "groups": lambda: groups(chosen.scale),
            "doors": lambda: _doors(chosen.scale),
            "scale": lambda: [*scale.many_partitions(chosen.scale), *scale.compaction(chosen.scale)],
        }.get(section, lambda: search(chosen.scale))
        results += run()
        os.sched_setaffinity(0, cores)
    show(results, title="Senselog", as_json=chosen.json)
    return 0


def _broker(scale: float) -> list[Result]:
    with senselog(PAGE_CACHE) as broker:
        return loads.broker_loads(broker, scale=scale)


def _doors(scale: float) -> list[Result]:
    with senselog(PAGE_CACHE, pin=False) as broker:
        return doors(broker, seconds=5 * scale)


if __name__ == "__main__":
    sys.exit(main())
