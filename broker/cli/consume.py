"""`senselog consume`: a topic's records, as lines on standard output."""

import base64
import json
import sys
from typing import Annotated, Any

import typer

from broker.cli.failure import Failure
from broker.cli.options import DEFAULT_BOOTSTRAP, Bootstrap, TopicName, timestamp_ms

EXAMPLES = """
[bold]Examples[/bold]

  senselog consume logs                                  (all there is now, then stop)
  senselog consume logs --from end --follow              (new records as they arrive)
  senselog consume logs --partition 0 --from 1000 -n 5 --offsets
  senselog consume logs --since 2026-01-31T12:00:00Z --json
"""
_POLL_MS = 200


def consume(
    topic: TopicName,
    start: Annotated[str, typer.Option("--from", metavar="WHERE", help="beginning, end, or an offset.")] = "beginning",
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From this time on instead.", show_default=False)
    ] = None,
    partitions: Annotated[
        list[int] | None, typer.Option("--partition", "-p", help="Only this one; may be repeated.", show_default=False)
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, help="Stop after so many.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    offsets: Annotated[bool, typer.Option("--offsets", help="PARTITION@OFFSET and the key before each value.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per record.")] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Print a topic's records: from the beginning to what is there now, or on and on with --follow."""
    since_ms = timestamp_ms(since, "--since")
    if start not in ("beginning", "end") and not start.isdecimal():
        raise typer.BadParameter(f"{start!r}: expected beginning, end or an offset", param_hint="--from")
    from broker.cli.connect import consumer

    write = _writer(offsets=offsets, as_json=as_json)
    with consumer(bootstrap) as client:
        assigned = _assign(client, topic, partitions)
        _seek(client, assigned, start, since_ms)
        ends = None if follow else client.end_offsets(assigned)
        try:
            _copy(client, assigned, ends, count, write)
        except KeyboardInterrupt:  # the ordinary end of --follow
            raise typer.Exit(0) from None


def _assign(client: Any, topic: str, wanted: list[int] | None) -> list[Any]:
    from kafka.structs import TopicPartition

    there = client.partitions_for_topic(topic)
    if not there:
        raise Failure(f"there is no topic {topic}")
    missing = set(wanted or ()) - set(there)
    if missing:
        raise Failure(f"topic {topic} has no partition {min(missing)}: it has {len(there)}")
    assigned = [TopicPartition(topic, partition) for partition in sorted(wanted or there)]
    client.assign(assigned)
    return assigned


def _seek(client: Any, assigned: list[Any], start: str, since_ms: int | None) -> None:
    if since_ms is not None:
        client.seek_to_end(*assigned)
        for partition, found in client.offsets_for_times(dict.fromkeys(assigned, since_ms)).items():
            if found is not None:
                client.seek(partition, found.offset)
    elif start == "beginning":
        client.seek_to_beginning(*assigned)
    elif start == "end":
        client.seek_to_end(*assigned)
    else:
        _seek_offset(client, assigned, int(start))


def _seek_offset(client: Any, assigned: list[Any], offset: int) -> None:
    first, end = client.beginning_offsets(assigned), client.end_offsets(assigned)
    for partition in assigned:
        if len(assigned) == 1 and not first[partition] <= offset <= end[partition]:
            raise Failure(
                f"offset {offset} lies outside {partition.topic} partition {partition.partition}, "
                f"which holds {first[partition]} to {end[partition]}"
            )
        client.seek(partition, min(max(offset, first[partition]), end[partition]))


def _copy(client: Any, assigned: list[Any], ends: dict[Any, int] | None, count: int | None, write: Any) -> None:
    left = count
    while ends is None or any(client.position(partition) < ends[partition] for partition in assigned):
        for partition, records in client.poll(timeout_ms=_POLL_MS).items():
            for record in records:
                if ends is not None and record.offset >= ends[partition]:
                    continue  # arrived after we started
                write(record)
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
        sys.stdout.flush()


def _writer(*, offsets: bool, as_json: bool) -> Any:
    out = sys.stdout.buffer

    def plain(record: Any) -> None:
        if offsets:
            key = b"" if record.key is None else record.key
            out.write(b"%d@%d\t%s\t" % (record.partition, record.offset, key))
        out.write(record.value or b"")
        out.write(b"\n")

    def as_object(record: Any) -> None:
        out.write(json.dumps(_object(record), ensure_ascii=False).encode() + b"\n")

    return as_object if as_json else plain


def _object(record: Any) -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **json_bytes("key", record.key),
        **json_bytes("value", record.value),
        "headers": [{"name": name, **json_bytes("value", value)} for name, value in record.headers],
    }


def json_bytes(name: str, data: bytes | None) -> dict[str, str | None]:
    """`name` as text, or as `name_base64` when the bytes are not UTF-8; JSON has no bytes."""
    if data is None:
        return {name: None}
    try:
        return {name: bytes(data).decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
