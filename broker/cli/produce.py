"""`senselog produce`: lines of standard input become records."""

import sys
from typing import Annotated, Any, Literal

import typer

from broker.cli.failure import Failure, describe
from broker.cli.options import DEFAULT_BOOTSTRAP, Bootstrap, TopicName

EXAMPLES = """
[bold]Examples[/bold]

  senselog produce logs < app.log
  tail -F app.log | senselog produce logs
  printf 'alice\\thello\\n' | senselog produce chat --key-separator tab --compression zstd
"""


def produce(
    topic: TopicName,
    key_separator: Annotated[
        str | None,
        typer.Option(
            "--key-separator",
            "-K",
            metavar="TEXT",
            help="Each line is KEY TEXT VALUE; `tab` for a tab.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", min=0, help="Only to this partition.", show_default=False)
    ] = None,
    compression: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"],
        typer.Option("--compression", "-z", help="Codec of the batches."),
    ] = "none",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Produce each line of standard input as one record."""
    from broker.cli.connect import producer

    separator = "\t" if key_separator == "tab" else key_separator
    settings: dict[str, Any] = {"compression_type": None if compression == "none" else compression, "linger_ms": 5}
    failures: list[Exception] = []
    sent = 0
    if sys.stdin.isatty():
        print(f"Type records for {topic}, one per line; end with Ctrl-D.", file=sys.stderr)
    with producer(bootstrap, **settings) as client:
        for line in sys.stdin.buffer:
            key, value = _split(line.rstrip(b"\r\n"), separator)
            future = client.send(topic, value=value, key=key, partition=partition)
            future.add_errback(failures.append)
            sent += 1
            if failures:
                break
        client.flush(timeout=60)
    if failures:
        raise Failure(f"cannot produce to {topic}: {describe(failures[0])}")
    print(f"produced {sent:,} record{'s' if sent != 1 else ''} to {topic}", file=sys.stderr)


def _split(line: bytes, separator: str | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator.encode())
    if not found:
        raise Failure(f"no key separator {separator!r} in the line {line[:60].decode(errors='replace')!r}")
    return key, value
