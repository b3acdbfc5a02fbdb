"""`senselog worker`: a vector worker on a machine of its own."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/bold]

  senselog worker --broker kafka.example.com:9095 --data-dir /var/lib/senselog \\
                  --keystore worker.pem --truststore authority.pem

The broker keeps places for workers from elsewhere: vector.remote.workers=1, vector.worker.listen=0.0.0.0:9095,
vector.worker.ssl.truststore.location=worker-authority.pem. With storage.objects.url what others have sealed is downloaded instead
of embedded again; credentials for the store come from this machine's environment.
SIGTERM or Ctrl-C stops it with a checkpoint; when the broker goes away it comes back by itself.
"""

# What the broker sets for workers that it starts: FAISS and the tokenizer start no threads of their own, nothing is downloaded.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def worker(
    broker: Annotated[
        str,
        typer.Option("--broker", metavar="HOST:PORT", help="The broker's vector.worker.listen.", show_default=False),
    ],
    keystore: Annotated[
        Path, typer.Option("--keystore", metavar="FILE.pem", help="Key and certificate to show.", show_default=False)
    ],
    truststore: Annotated[
        Path,
        typer.Option("--truststore", metavar="FILE.pem", help="Authorities that sign the broker.", show_default=False),
    ],
    data_dir: Annotated[Path, typer.Option("--data-dir", metavar="DIR", help="Where indexes are kept.")] = Path("data"),
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model-dir",
            metavar="DIR",
            help="Local models.  [default: $SENSELOG_MODEL_DIR or .models]",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Cores for the local model; 0: all.")] = 0,
) -> None:
    """Index and search a broker's vectors from this machine."""
    import os

    from broker.config import ConfigError, parse_address

    try:
        host, port = parse_address(broker)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--broker") from None
    os.environ.update(ENVIRONMENT)
    from storage.file_system import OsFileSystem
    from vector.embed.local import model_directory
    from vector.event_loop import run
    from vector.join import BrokerAddress, serve
    from vector.worker import OwnMachine, prepare_process

    prepare_process()
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = OsFileSystem().lock(data_dir / ".lock")
    try:
        machine = OwnMachine(data_dir.resolve(), (model_dir or model_directory()).resolve(), threads)
        run(serve(BrokerAddress(host, port, keystore, truststore), machine))
    finally:
        lock.close()
