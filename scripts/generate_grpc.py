"""Generates the gRPC messages and stubs beside their .proto file; with a directory as argument, there instead."""

import sys
from pathlib import Path

from grpc_tools import protoc

CLIENT = Path(__file__).resolve().parents[1] / "client"
PROTO = "senselog_client/v1/vector_search.proto"


def generate(target: Path) -> None:
    """Raises SystemExit when protoc finds fault with the file."""
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={CLIENT}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            PROTO,
        ]
    )
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else CLIENT)
