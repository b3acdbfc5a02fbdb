"""`senselog models …`: the local embedding models."""

import typer

app = typer.Typer(help="The local embedding models.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _group() -> None:
    """The local embedding models."""
