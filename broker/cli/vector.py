"""`senselog vector …`: the index of a topic."""

import typer

from broker.cli import vector_status

app = typer.Typer(help="The index of a topic.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _group() -> None:
    """The index of a topic."""


app.command(epilog=vector_status.EXAMPLES)(vector_status.status)
