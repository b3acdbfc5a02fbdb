"""broker.config: where values come from, and errors that name the key."""

from pathlib import Path

import pytest

from broker.config import Config, ConfigError, format_address, parse_address


def test_flags_beat_the_file_and_settings_beat_flags(tmp_path: Path) -> None:
    file = tmp_path / "senselog.toml"
    file.write_text(
        'listen = "127.0.0.1:1"\nstorage.sync = "os"\nnum.partitions = 3\n[auto.create]\ntopics.enable = false\n'
    )
    config = Config.load(file, ["num.partitions=7"], listen="127.0.0.1:2", data_dir=None)
    assert (config.listen, config.storage_sync, config.num_partitions) == ("127.0.0.1:2", "os", 7)
    assert not config.auto_create_topics_enable


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("no.such.key=1", "no.such.key"),
        ("storage.sync=sometimes", "storage.sync"),
        ("num.partitions=0", "num.partitions"),
        ("num.partitions=many", "num.partitions"),
        ("num.partitions", "expected key=value"),
    ],
)
def test_errors_name_the_key(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.load(None, [setting])


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        Config.load(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        Config.load(broken)


@pytest.mark.parametrize(("text", "address"), [("localhost:9092", ("localhost", 9092)), ("[::1]:1", ("::1", 1))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(*address) == text


@pytest.mark.parametrize("text", ["", "localhost", ":9092", "localhost:", "localhost:x", "localhost:70000"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


def test_the_bounds_of_consumer_groups_hold() -> None:
    """group.consumer.session.timeout.ms and the like lie between their own bounds; the message names all three."""
    with pytest.raises(
        ConfigError, match=r"^group.consumer.session.timeout.ms must be between group.consumer.min.session"
    ):
        Config.load(settings=["group.consumer.session.timeout.ms=10"])
    settings = ["group.consumer.session.timeout.ms=6000", "group.consumer.min.session.timeout.ms=6000"]
    assert Config.load(settings=settings).group_consumer_session_timeout_ms == 6000
