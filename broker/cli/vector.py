"""`senselog vector …`: the index of a topic."""

import typer

from broker.cli import vector_admin, vector_status

app = typer.Typer(help="The index of a topic.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _group() -> None:
    """The index of a topic."""


app.command(epilog=vector_status.EXAMPLES)(vector_status.status)
app.command()(vector_admin.failures)
app.command()(vector_admin.retry)
app.command()(vector_admin.pause)
app.command()(vector_admin.resume)
app.command(epilog=vector_admin.REEMBED_EXAMPLES)(vector_admin.reembed)
app.command()(vector_admin.cutover)
app.command()(vector_admin.rollback)
