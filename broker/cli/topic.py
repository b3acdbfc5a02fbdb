"""`senselog topic …`: topics and their configuration."""

import base64
import json
from typing import Annotated, Any
from uuid import UUID

import typer

from broker.cli.failure import Failure
from broker.cli.options import DEFAULT_BOOTSTRAP, AsJson, Bootstrap, TopicName, key_values

app = typer.Typer(
    help="Create, list, describe, alter and delete topics.", no_args_is_help=True, rich_markup_mode="rich"
)

_CREATE_EXAMPLES = """
[bold]Examples[/bold]

  senselog topic create logs --partitions 3 --vector-search
  senselog topic create logs --partitions 3 --vector-search --embedding-model openai:text-embedding-3-small --vector-field value
  senselog topic create orders --config retention.ms=86400000 --config cleanup.policy=compact
"""
_ALTER_EXAMPLES = """
[bold]Examples[/bold]

  senselog topic alter logs --vector-search            (the existing log is indexed from its start)
  senselog topic alter logs --partitions 6
  senselog topic alter logs --config retention.ms=3600000 --reset max.message.bytes
"""

_Partitions = Annotated[
    int | None, typer.Option("--partitions", min=1, help="How many partitions.", show_default=False)
]
_Configs = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="A topic config; may be repeated.", show_default=False),
]
_EmbeddingModel = Annotated[
    str | None,
    typer.Option(
        "--embedding-model",
        metavar="MODEL",
        help="What embeds, e.g. openai:text-embedding-3-small.",
        show_default=False,
    ),
]
_VectorField = Annotated[
    str | None,
    typer.Option(
        "--vector-field",
        metavar="FIELD",
        help="What is embedded: value, key or header:NAME.",
        show_default=False,
    ),
]


def _vector_configs(enabled: bool | None, model: str | None, field: str | None) -> dict[str, str]:
    configs = {"vector.enabled": None if enabled is None else str(enabled).lower(), "vector.embedding.model": model}
    configs["vector.field"] = field
    return {key: value for key, value in configs.items() if value is not None}


def _check_answers(answers: list[dict[str, Any]], doing: str, *, tolerate: int = 0) -> None:
    """Raises Failure with the broker's own words for the first topic that was refused."""
    from protocol.errors import ErrorCode

    texts = {int(code): code.text for code in ErrorCode}
    for answer in answers:
        code = answer["error_code"]
        if code and code != tolerate:
            reason = answer.get("error_message") or texts.get(code, f"error {code}")
            raise Failure(f"cannot {doing} {answer['name']}: {reason}")


@app.command(epilog=_CREATE_EXAMPLES)
def create(
    topic: TopicName,
    partitions: _Partitions = None,
    vector_search: Annotated[
        bool, typer.Option("--vector-search", help="Index it, so that it can be searched.")
    ] = False,
    embedding_model: _EmbeddingModel = None,
    vector_field: _VectorField = None,
    config: _Configs = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if the topic exists.")] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Create a topic."""
    if not vector_search and (embedding_model or vector_field):
        raise typer.BadParameter("needs --vector-search", param_hint="--embedding-model / --vector-field")
    configs = key_values(config or [], "--config")
    configs |= _vector_configs(vector_search or None, embedding_model, vector_field)
    from broker.cli.connect import admin
    from protocol.errors import ErrorCode

    with admin(bootstrap) as client:
        wanted = {topic: {"num_partitions": partitions or -1, "replication_factor": -1, "configs": configs}}
        answers = client.create_topics(wanted, raise_errors=False)["topics"]
    exists = any(answer["error_code"] == ErrorCode.TOPIC_ALREADY_EXISTS for answer in answers)
    _check_answers(answers, "create", tolerate=ErrorCode.TOPIC_ALREADY_EXISTS if if_not_exists else 0)
    if exists:
        typer.echo(f"topic {topic} exists already")
        return
    count = answers[0].get("num_partitions", partitions)
    extra = ", searchable by meaning" if vector_search else ""
    typer.echo(f"created topic {topic} with {count} partition{'s' if count != 1 else ''}{extra}")


@app.command("list")
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="Internal topics too.")] = False,
    as_json: AsJson = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """List the topics."""
    from broker.cli.connect import admin

    with admin(bootstrap) as client:
        found = [topic for topic in client.describe_topics() if internal or not topic["is_internal"]]
        configs = _overrides(client, [topic["name"] for topic in found])
    rows = [
        {
            "name": topic["name"],
            "partitions": len(topic["partitions"]),
            "vector_enabled": configs[topic["name"]].get("vector.enabled") == "true",
            "embedding_model": configs[topic["name"]].get("vector.embedding.model"),
        }
        for topic in sorted(found, key=lambda topic: str(topic["name"]))
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from broker.cli.tables import console, table

    shown = table("topic", ("partitions", "right"), "vectors")
    for row in rows:
        model = row["embedding_model"] or "default model"
        shown.add_row(row["name"], str(row["partitions"]), model if row["vector_enabled"] else "[dim]off[/dim]")
    console().print(shown if rows else "no topics yet: senselog topic create NAME")


def _overrides(client: Any, names: list[str], *, everything: bool = False) -> dict[str, dict[str, str]]:
    from kafka.admin import ConfigResource, ConfigResourceType

    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answer = client.describe_configs(resources, config_filter="all" if everything else "modified")["topic"]
    return {
        name: {
            key: config["value"]
            for key, config in answer[name].items()
            if everything or config["config_source"] == "DYNAMIC_TOPIC_CONFIG"
        }
        for name in names
    }


@app.command()
def describe(
    topic: TopicName,
    all_configs: Annotated[bool, typer.Option("--all", help="Every config, not only those set on the topic.")] = False,
    as_json: AsJson = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Show a topic's partitions, offsets and configuration."""
    from broker.cli.connect import admin

    with admin(bootstrap) as client:
        found = client.describe_topics([topic])
        _check_answers(found, "describe")
        configs = _overrides(client, [topic], everything=all_configs)[topic]
        partitions = _offsets(client, topic, found[0]["partitions"])
    # As Kafka's own tools write ids.
    topic_id = base64.urlsafe_b64encode(UUID(str(found[0]["topic_id"])).bytes).decode().rstrip("=")
    if as_json:
        described = {"name": topic, "topic_id": topic_id, "configs": configs, "partitions": partitions}
        typer.echo(json.dumps(described, indent=2))
        return
    from broker.cli.tables import console, table

    out = console()
    records = sum(partition["end_offset"] - partition["start_offset"] for partition in partitions)
    out.print(f"[bold]{topic}[/bold]  id {topic_id}  {records:,} offsets")
    shown = table(("partition", "right"), ("leader", "right"), ("start", "right"), ("end", "right"))
    for partition in partitions:
        shown.add_row(*(str(partition[key]) for key in ("partition", "leader", "start_offset", "end_offset")))
    out.print(shown)
    if configs:
        shown = table("config", "value")
        for key in sorted(configs):
            shown.add_row(key, str(configs[key]))
        out.print(shown)


def _offsets(client: Any, topic: str, partitions: list[dict[str, Any]]) -> list[dict[str, int]]:
    from kafka.admin import OffsetSpec
    from kafka.structs import TopicPartition

    found = [TopicPartition(topic, partition["partition_index"]) for partition in partitions]
    start = client.list_partition_offsets(dict.fromkeys(found, OffsetSpec.EARLIEST))
    end = client.list_partition_offsets(dict.fromkeys(found, OffsetSpec.LATEST))
    leaders = {partition["partition_index"]: partition["leader_id"] for partition in partitions}
    return [
        {
            "partition": key.partition,
            "leader": leaders[key.partition],
            "start_offset": start[key].offset,
            "end_offset": end[key].offset,
        }
        for key in sorted(found, key=lambda key: int(key.partition))
    ]


@app.command(epilog=_ALTER_EXAMPLES)
def alter(
    topic: TopicName,
    partitions: _Partitions = None,
    vector_search: Annotated[
        bool | None,
        typer.Option("--vector-search/--no-vector-search", help="Switch indexing on or off.", show_default=False),
    ] = None,
    embedding_model: _EmbeddingModel = None,
    vector_field: _VectorField = None,
    config: _Configs = None,
    reset: Annotated[
        list[str] | None, typer.Option("--reset", metavar="KEY", help="Back to the default.", show_default=False)
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Change a topic: more partitions, other configs, search on or off."""
    changes: dict[str, Any] = dict(key_values(config or [], "--config"))
    changes |= _vector_configs(vector_search, embedding_model, vector_field)
    changes |= dict.fromkeys(reset or [], ("DELETE", None))
    if not changes and partitions is None:
        raise typer.BadParameter("nothing to change: give --partitions, --config, --reset or a vector option")
    from broker.cli.connect import admin

    with admin(bootstrap) as client:
        _check_answers(client.describe_topics([topic]), "alter")
        if partitions is not None:
            answer = client.create_partitions({topic: partitions}, raise_errors=False)
            _check_answers(answer.to_dict()["results"], "alter")
        if changes:
            _alter_configs(client, topic, changes)
    typer.echo(f"altered topic {topic}")


def _alter_configs(client: Any, topic: str, changes: dict[str, Any]) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    resource = ConfigResource(ConfigResourceType.TOPIC, topic, changes)
    answer = client.alter_configs([resource], raise_on_unknown=False)["topic"][topic]
    if answer != "OK":
        # kafka-python prefixes the broker's message with its own class: "[Error 40] InvalidConfigurationError: …"
        raise Failure(f"cannot alter {topic}: {answer.split(': ', 1)[-1]}")


@app.command()
def delete(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="The topics.", show_default=False)],
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Delete topics, with their records and their index."""
    from broker.cli.connect import admin

    with admin(bootstrap) as client:
        answers = client.delete_topics(topics, raise_errors=False)["topics"]
    for answer in answers:
        if not answer["error_code"]:
            typer.echo(f"deleted topic {answer['name']}")
    _check_answers(answers, "delete")
