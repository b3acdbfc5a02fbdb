"""The gRPC stubs in the repository are what `make stubs` makes of the .proto beside them."""

from pathlib import Path

from scripts.generate_grpc import CLIENT, generate


def test_the_stubs_are_up_to_date(tmp_path: Path) -> None:
    generate(tmp_path)
    generated = sorted((tmp_path / "senselog_client" / "v1").iterdir())
    assert len(generated) == 3
    for file in generated:
        assert (CLIENT / "senselog_client" / "v1" / file.name).read_text() == file.read_text(), "run `make stubs`"
