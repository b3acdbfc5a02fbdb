"""`senselog serve`: the broker itself."""

import gc
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/bold]

  senselog serve
  senselog serve --data-dir /var/lib/senselog --listen 0.0.0.0:9092 --config senselog.toml
  senselog serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --grpc 127.0.0.1:0 --set storage.sync=os

Port 0 takes a free port. The line `senselog ready kafka=HOST:PORT http=HOST:PORT grpc=HOST:PORT` says when and where it serves.
SIGTERM or Ctrl-C stops it cleanly.
"""


def serve(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Where everything is kept.  [default: ./data]")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="For Kafka clients.  [default: 127.0.0.1:9092]"),
    ] = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="For REST and metrics.  [default: 127.0.0.1:8092]")
    ] = None,
    grpc: Annotated[
        str | None,
        typer.Option("--grpc", metavar="HOST:PORT", help="For gRPC.  [default: 127.0.0.1:8093, if it is free]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Configuration file.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, over the file; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Start the broker."""
    from broker.config import Config, ConfigError, parse_address

    for option, address in (("--listen", listen), ("--http", http), ("--grpc", grpc)):
        try:
            parse_address(address or "0.0.0.0:0")
        except ConfigError as error:
            raise typer.BadParameter(str(error), param_hint=option) from None
    loaded = Config.load(config, settings or (), data_dir=data_dir, listen=listen, http_listen=http, grpc_listen=grpc)
    from broker.search.worker_process import start_early

    early = start_early(loaded)
    gc.disable()  # a tenth of the time of all that is imported now
    from broker.app import serve as run

    raise typer.Exit(run(loaded, early))
