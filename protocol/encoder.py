"""Compiles a schema and a version into one flat Python function that encodes.

The function yields a list of buffers: records are passed on as they are, everything between them is joined. Fields that
the version lacks are left out silently, so that handlers can fill them for every version.
"""

from collections.abc import Callable
from typing import Any

from protocol.messages import Message
from protocol.schema import Field, Struct
from protocol.schema import Message as Schema
from protocol.wire import FORMATS, Buffer, prepared, record_buffers, unsigned_varint

Encode = Callable[[Message], list[Buffer]]
"""Raises AttributeError, TypeError, ValueError or struct.error for values of the wrong type or range."""


def compile_encoder(schema: Schema, version: int) -> Encode:
    """The encoder of one version of `schema`."""
    writer = _EncoderWriter(version, version in schema.flexible)
    writer.struct(schema.root, "m")
    return writer.finish(f"<encode {schema.root.name} v{version}>")


class _EncoderWriter:
    """Writes the source; `pending` are fixed-size writes that are merged into one `pack`, `append` is where they go."""

    def __init__(self, version: int, flexible: bool) -> None:
        self.version = version
        self.flexible = flexible
        self.scope: dict[str, Any] = {
            "uv": unsigned_varint,
            "record_buffers": record_buffers,
            "prepared": prepared,
            "join": b"".join,
        }
        self.lines = ["def encode(m):", "    out = []; parts = []; append = parts.append"]
        self.indent = 1
        self.pending: list[tuple[str, str]] = []
        self.variables = 0
        self.append = "append"

    def finish(self, name: str) -> Encode:
        self.flush()
        self.emit("if parts: out.append(join(parts))")
        self.emit("return out")
        exec(compile("\n".join(self.lines), name, "exec"), self.scope)  # noqa: S102  # our own source, from a schema
        encode: Encode = self.scope["encode"]
        return encode

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)

    def variable(self) -> str:
        self.variables += 1
        return f"v{self.variables}"

    def write(self, layout: str, value: str) -> None:
        self.pending.append((layout, value))

    def flush(self) -> None:
        if not self.pending:
            return
        layout = "".join(part for part, _ in self.pending)
        values = ", ".join(value for _, value in self.pending if value)
        self.pending.clear()
        if layout.strip("x"):
            pack = f"pack_{layout.replace('?', 'o')}"
            self.scope[pack] = prepared(layout).pack
            self.emit(f"{self.append}({pack}({values}))")
        else:
            self.emit(f"{self.append}({bytes(len(layout))!r})")

    def struct(self, struct: Struct, source: str) -> None:
        """Writes all fields of the struct that the expression `source` yields."""
        tagged = []
        for field in struct.fields:
            if self.version not in field.versions:
                continue
            if self.flexible and self.version in field.tagged:
                tagged.append(field)
            else:
                self.field(field, f"{source}.{field.name}")
        if tagged:
            self.tags(sorted(tagged, key=lambda field: field.tag), source)
        elif self.flexible:
            self.write("x", "")

    def tags(self, tagged: list[Field], source: str) -> None:
        """Tagged fields are written only where they differ from their default (KIP-482), in the order of their tags."""
        self.flush()
        outer, count, data = self.append, self.variable(), self.variable()
        self.emit(f"{count} = 0; {data} = []")
        for field in tagged:
            value, parts, encoded = self.variable(), self.variable(), self.variable()
            self.emit(f"{value} = {source}.{field.name}")
            self.emit(f"if {self.differs(field, value)}:")
            self.indent += 1
            self.append = f"{parts}.append"
            self.emit(f"{parts} = []; {count} += 1")
            self.field(field, value, tagged=True)
            self.flush()
            self.emit(f"{encoded} = join({parts})")
            self.emit(f"{data} += (uv({field.tag}), uv(len({encoded})), {encoded})")
            self.append = outer
            self.indent -= 1
        self.emit(f"{outer}(uv({count}))")
        self.emit(f"if {count}: {outer}(join({data}))")

    def differs(self, field: Field, value: str) -> str:
        if field.default is None:
            return f"{value} is not None"
        if field.default is not ...:
            return f"{value} != {field.default_source}"
        if field.array:
            return f"{value} is None or {value}" if self.version in field.nullable else f"{value}"
        assert field.struct is not None
        members = [member for member in field.struct.fields if self.version in member.versions]
        conditions = [f"({self.differs(member, f'{value}.{member.name}')})" for member in members]
        if self.version in field.nullable:
            conditions.insert(0, f"{value} is None")
        return " or ".join(conditions)

    def field(self, field: Field, source: str, *, tagged: bool = False) -> None:
        """Writes the value that the expression `source` yields."""
        nullable = self.version in field.nullable
        if field.kind in FORMATS and not field.array:
            self.write(FORMATS[field.kind], source)
            return
        value = self.variable()
        self.emit(f"{value} = {source}")
        if nullable:
            self.flush()
            self.emit(f"if {value} is None: {self.append}({self.null(field, tagged)!r})")
            self.emit("else:")
            self.indent += 1
            if field.struct and not field.array:
                self.write("b", "1")
        self.value(field, value)
        if nullable:
            self.flush()
            self.indent -= 1

    def null(self, field: Field, tagged: bool) -> bytes:
        if field.struct and not field.array:
            return b"\x00" if tagged else b"\xff"  # see Decoder.nullable_struct
        if self.flexible:
            return b"\x00"
        return b"\xff" * (2 if field.kind == "string" and not field.array else 4)

    def value(self, field: Field, value: str) -> None:
        if field.array:
            self.array(field, value)
        elif field.struct:
            self.struct(field.struct, value)
        elif field.kind == "records":
            self.records(value)
        else:
            self.text_or_bytes(field.kind, value)

    def length(self, layout: str, length: str) -> None:
        if self.flexible:
            self.flush()
            self.emit(f"{self.append}(uv({length} + 1))")
        else:
            self.write(layout, length)
            self.flush()

    def text_or_bytes(self, kind: str, value: str) -> None:
        if kind == "string":
            self.emit(f"{value} = {value}.encode()")
        self.length("h" if kind == "string" else "i", f"len({value})")
        self.emit(f"{self.append}({value})")

    def records(self, value: str) -> None:
        size = self.variable()
        self.emit(f"{size}, {value} = record_buffers({value})")
        self.length("i", size)
        self.emit(f"if {value}: out.append(join(parts)); parts.clear(); out += {value}")

    def array(self, field: Field, value: str) -> None:
        self.length("i", f"len({value})")
        if field.kind in FORMATS and field.kind != "uuid":
            self.emit(f"{self.append}(prepared(f'{{len({value})}}{FORMATS[field.kind]}').pack(*{value}))")
            return
        element = self.variable()
        self.emit(f"for {element} in {value}:")
        self.indent += 1
        if field.struct:
            self.struct(field.struct, element)
        elif field.kind in FORMATS:
            self.write(FORMATS[field.kind], element)
        else:
            self.text_or_bytes(field.kind, element)
        self.flush()
        self.indent -= 1
