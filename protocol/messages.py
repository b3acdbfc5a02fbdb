"""One class per message, the same for all versions, built from the schema on first use.

    from protocol.messages import MetadataRequest, MetadataResponse
    topic = MetadataResponse.MetadataResponseTopic(name="logs")

Every struct of a message, however deep, is an attribute of the message's class, by its name in the schema. Constructors
take keywords; a field left out has the schema's default. `messages.pyi` holds the types.
"""

from functools import cache
from typing import Any, ClassVar

from protocol import schema

_EMPTY: Any = type("Empty", (), {"__repr__": lambda _: "..."})()


class Message:
    """What all messages and their structs share; compared field by field."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # fields change
    FIELDS: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.FIELDS)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.FIELDS)})"


@cache
def message_class(name: str) -> type[Message]:
    """The class of the message `name`; raises LookupError if there is no such message."""
    structs: dict[str, type[Message]] = {}
    root = _struct_class(schema.load(name).root, structs, name)
    for struct_name, struct in structs.items():
        if struct is not root:
            setattr(root, struct_name, struct)
    return root


def _struct_class(struct: schema.Struct, structs: dict[str, type[Message]], path: str) -> type[Message]:
    if struct.name in structs:
        return structs[struct.name]
    scope: dict[str, Any] = {"EMPTY": _EMPTY}
    parameters, body = [], []
    for field in struct.fields:
        if field.struct:
            scope[f"{field.name}_class"] = _struct_class(field.struct, structs, path)
        if field.default is ...:
            empty = "[]" if field.array else f"{field.name}_class()"
            parameters.append(f"{field.name}=EMPTY")
            body.append(f"    self.{field.name} = {empty} if {field.name} is EMPTY else {field.name}")
        else:
            parameters.append(f"{field.name}={field.default_source}")
            body.append(f"    self.{field.name} = {field.name}")
    source = "\n".join([f"def __init__({', '.join(['self', *parameters])}):", *body, "    pass"])
    exec(compile(source, f"<{path}.{struct.name}>", "exec"), scope)  # noqa: S102  # our own source, from a schema
    names = tuple(field.name for field in struct.fields)
    members = {"__slots__": names, "FIELDS": names, "__init__": scope["__init__"], "__module__": __name__}
    structs[struct.name] = type(struct.name, (Message,), members)
    return structs[struct.name]


def __getattr__(name: str) -> type[Message]:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        built = message_class(name)
    except LookupError as error:
        raise AttributeError(f"{error} in {__name__}") from error
    globals()[name] = built
    return built
