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


def test_a_listener_has_its_own_settings_where_it_says_so(tmp_path: Path) -> None:
    """As Kafka's `listener.name.NAME.KEY`, in any case of NAME; what it does not say is as everywhere."""
    file = tmp_path / "senselog.toml"
    file.write_text('[listener.name.outer]\nssl.client.auth = "required"\n')
    settings = ["listener.name.Inner.sasl.enabled.mechanisms=PLAIN", "connections.max.reauth.ms=5"]
    config = Config.load(file, settings)
    assert [config.at(name).ssl_client_auth for name in ("OUTER", "INNER", "OTHER")] == ["required", "none", "none"]
    assert config.at("INNER").sasl_enabled_mechanisms == "PLAIN"
    assert config.at("OTHER").sasl_enabled_mechanisms == config.sasl_enabled_mechanisms != "PLAIN"
    assert config.at("INNER").connections_max_reauth_ms == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("listener.name.a.ssl.client.auth=maybe", r"listener\.name\.a\.ssl\.client\.auth: .*'maybe'"),
        ("listener.name.a.ssl.colour=red", r"unknown configuration key 'listener\.name\.a\.ssl\.colour'"),
        ("listener.name.a.num.partitions=2", r"listener\.name\.a\.num\.partitions: is the same for all listeners"),
        ("listener.name.a=2", r"listener\.name\.a: expected listener\.name\.NAME\.KEY, such as"),
    ],
)
def test_a_listeners_bad_setting_is_named_with_the_listener(setting: str, message: str) -> None:
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
