"""The `senselog` command. Every command imports what it needs when it runs, so that help appears at once."""

import os
import sys
from typing import Annotated

import typer

from broker.cli import check, consume, models, produce, search, serve, topic, user, vector, worker
from broker.cli.client_properties import ENVIRONMENT
from broker.cli.failure import describe

_EXAMPLES = """
[bold]Examples[/bold]

  senselog serve --data-dir ./data
  senselog topic create logs --partitions 3 --vector-search
  senselog produce logs < app.log
  senselog search logs "database connection errors" --latest
  senselog consume logs --follow

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

app = typer.Typer(
    name="senselog",
    help="A Kafka broker whose topics can be searched by meaning.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", epilog=serve.EXAMPLES)(serve.serve)
app.add_typer(topic.app, name="topic")
app.command("produce", epilog=produce.EXAMPLES)(produce.produce)
app.command("consume", epilog=consume.EXAMPLES)(consume.consume)
app.command("search", epilog=search.EXAMPLES)(search.search)
app.add_typer(vector.app, name="vector")
app.add_typer(user.app, name="user")
app.add_typer(models.app, name="models")
app.command("worker", epilog=worker.EXAMPLES)(worker.worker)
app.command("check", epilog=check.EXAMPLES)(check.check)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"senselog {version('senselog')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    client_config: Annotated[
        str | None,
        typer.Option(
            "--client-config",
            metavar="FILE",
            envvar=ENVIRONMENT,
            help="Kafka's client properties, for a broker with TLS or SASL.",
            show_default=False,
        ),
    ] = None,
) -> None:
    if client_config is not None:
        os.environ[ENVIRONMENT] = client_config


def main() -> None:
    """Runs the command line; exits with 0, 1 (failed) or 2 (wrong usage). Errors are one line, without a traceback."""
    try:
        app(prog_name="senselog")
    except BrokenPipeError:  # `senselog consume logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("SENSELOG_TRACEBACK"):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(1)
