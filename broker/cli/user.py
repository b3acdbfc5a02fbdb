"""`senselog user …`: who may log in by SCRAM, in a running broker or, with --data-dir, before its first start."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.failure import Failure
from broker.cli.options import DEFAULT_BOOTSTRAP, AsJson, Bootstrap

if TYPE_CHECKING:
    from broker.security.scram import ScramMechanism
    from broker.security.users import ScramUsers

app = typer.Typer(help="Users that log in by SCRAM.", no_args_is_help=True, rich_markup_mode="rich")

_EXAMPLES = """
[bold]Examples[/bold]

  senselog user set admin --data-dir ./data          before the first start of a broker that lets nobody in
  senselog --client-config admin.properties user set alice
  senselog --client-config admin.properties user list

The password is asked for, or read from standard input or --password-file; it is never an argument. What is kept cannot be
turned back into it.
"""

UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user, without `User:`.", show_default=False)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Change the data of a broker that does not run.", show_default=False
    ),
]
Mechanism = Annotated[
    str | None,
    typer.Option(
        "--mechanism", metavar="NAME", help="SCRAM-SHA-256 or SCRAM-SHA-512.  [default: both]", show_default=False
    ),
]


@app.command("set", epilog=_EXAMPLES)
def set_user(
    name: UserName,
    mechanism: Mechanism = None,
    iterations: Annotated[
        int, typer.Option("--iterations", min=4096, max=16384, help="The more, the slower is guessing.")
    ] = 8192,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", metavar="FILE", help="Holds the password.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Add a user, or change the password of one."""
    from broker.security.scram import Credential

    password = _password(password_file)
    chosen = _mechanisms(mechanism)
    if data_dir is not None:
        with _offline(data_dir) as users:
            users.change({(name, one): Credential.of_password(one, password, iterations=iterations) for one in chosen})
    else:
        from kafka.admin import UserScramCredentialUpsertion

        _alter(
            bootstrap,
            name,
            [UserScramCredentialUpsertion(name, int(one), password, iterations=iterations) for one in chosen],
        )
    typer.echo(f"{name}: {', '.join(one.mechanism_name for one in chosen)}")


@app.command("list")
def list_users(as_json: AsJson = False, data_dir: DataDir = None, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> None:
    """List users and their mechanisms."""
    from broker.security.scram import MECHANISMS, ScramMechanism

    if data_dir is not None:
        with _offline(data_dir) as users:
            found = {
                name: {one.mechanism_name: credential.iterations for one, credential in users.of_user(name).items()}
                for name in users.names()
            }
    else:
        from broker.cli.connect import admin

        with admin(bootstrap) as client:
            found = {
                name: {ScramMechanism(int(one["mechanism"])).mechanism_name: one["iterations"] for one in rows}
                for name, rows in _described(client.describe_user_scram_credentials())
            }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from broker.cli.tables import console, table

    shown = table("user", *((f"{one.mechanism_name} iterations", "right") for one in MECHANISMS))
    for name, mechanisms in sorted(found.items()):
        shown.add_row(name, *(str(mechanisms.get(one.mechanism_name, "–")) for one in MECHANISMS))
    console().print(shown)


@app.command()
def delete(
    name: UserName, mechanism: Mechanism = None, data_dir: DataDir = None, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> None:
    """Remove a user, or one mechanism of it. Connections that are open stay."""
    chosen = _mechanisms(mechanism)
    if data_dir is not None:
        with _offline(data_dir) as users:
            known = [one for one in chosen if users.get(name, one) is not None]
            users.change({(name, one): None for one in known})
    else:
        from kafka.admin import UserScramCredentialDeletion

        from broker.cli.connect import admin

        with admin(bootstrap) as client:
            listed = dict(_described(client.describe_user_scram_credentials()))
        has = {int(row["mechanism"]) for row in listed.get(name, [])}
        known = [one for one in chosen if int(one) in has]
        _alter(bootstrap, name, [UserScramCredentialDeletion(name, int(one)) for one in known])
    if not known:
        raise Failure(f"there is no user {name!r} with {' or '.join(one.mechanism_name for one in chosen)}")


def _mechanisms(name: str | None) -> "list[ScramMechanism]":
    from broker.security.scram import MECHANISMS

    chosen = [one for one in MECHANISMS if name is None or one.mechanism_name == name.upper()]
    if not chosen:
        raise typer.BadParameter(f"{name!r}: expected SCRAM-SHA-256 or SCRAM-SHA-512", param_hint="--mechanism")
    return chosen


def _password(file: Path | None) -> str:
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"--password-file: cannot read {file}: {error}") from None
        password = text.rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Failure("the password is empty")
    return password


def _alter(bootstrap: str, name: str, changes: list[Any]) -> None:
    """One change after the other: a user may occur once in a request."""
    from broker.cli.connect import admin

    with admin(bootstrap) as client:
        for change in changes:
            error = client.alter_user_scram_credentials([change]).get(name)
            if error is not None:
                raise Failure(f"{name}: {error}")


def _described(answer: Any) -> Iterator[tuple[str, list[Any]]]:
    for name, row in answer.items():
        yield name, row["credential_infos"]


@contextmanager
def _offline(data_dir: Path) -> "Iterator[ScramUsers]":
    """The users of a broker that does not run; raises DirectoryLocked for one that does."""
    from broker.meta_store import MetaStore
    from broker.security.users import ScramUsers
    from storage.file_system import OsFileSystem
    from storage.log_manager import LOCK_NAME

    file_system = OsFileSystem()
    store = MetaStore.open(data_dir, file_system)
    lock = file_system.lock(data_dir / LOCK_NAME)
    try:
        yield ScramUsers(store)
    finally:
        lock.close()
