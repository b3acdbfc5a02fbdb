"""`senselog user` and `--client-config`: from an empty directory to a user who logs in, without a password on any command line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import ROOT, BrokerProcess
from tests.integration.secure import start

pytestmark = pytest.mark.slow
SETTINGS = (
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users=User:admin",
)


def senselog(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "senselog", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    directory = tmp_path_factory.mktemp("broker")
    set_up = senselog("user", "set", "admin", "--data-dir", str(directory / "data"), stdin="admin-secret\n")
    assert (set_up.returncode, set_up.stdout) == (0, "admin: SCRAM-SHA-256, SCRAM-SHA-512\n"), set_up.stderr
    process = start(directory, "SASL_PLAINTEXT", *SETTINGS)
    yield process
    process.end()


def properties(broker: BrokerProcess, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> str:
    file = broker.directory / f"{user}.properties"
    file.write_text(
        f"bootstrap.servers={broker.bootstrap}\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{user}" password="{password}";\n'
    )
    return str(file)


def test_the_first_user_is_made_before_the_first_start(broker: BrokerProcess) -> None:
    """And can do everything at once, by either mechanism."""
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        admin = properties(broker, "admin", "admin-secret", mechanism)
        listed = senselog("--client-config", admin, "user", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        assert '"admin"' in listed.stdout


def test_users_come_and_go(broker: BrokerProcess) -> None:
    """A new user logs in; with another password it does not; removed, it does not either."""
    admin = properties(broker, "admin", "admin-secret")
    made = senselog("--client-config", admin, "user", "set", "alice", stdin="alice-secret\n")
    assert made.returncode == 0, made.stderr
    alice = properties(broker, "alice", "alice-secret")
    assert senselog("--client-config", alice, "topic", "list").returncode == 0
    refused = senselog("--client-config", alice, "topic", "create", "t")
    assert (refused.returncode, refused.stdout) == (1, "")
    wrong = senselog("--client-config", properties(broker, "alice", "wrong"), "topic", "list")
    assert wrong.returncode == 1
    assert "--client-config" in wrong.stderr
    assert senselog("--client-config", admin, "user", "delete", "alice").returncode == 0
    gone = senselog("--client-config", admin, "user", "delete", "alice")
    assert (gone.returncode, "there is no user 'alice'" in gone.stderr) == (1, True)


def test_the_data_of_a_running_broker_is_left_alone(broker: BrokerProcess) -> None:
    """Two writers of one file would lose each other's users."""
    refused = senselog("user", "set", "eve", "--data-dir", str(broker.data_directory), stdin="x\n")
    assert refused.returncode == 1
    assert "in use by another broker" in refused.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sasl.username", "'sasl.username' is none of"),
        ("no.such.key=1", "'no.such.key' is none of"),
        ("sasl.jaas.config=x", "sasl.jaas.config: expected"),
    ],
)
def test_client_properties_that_cannot_be_read_are_named(tmp_path: Path, text: str, message: str) -> None:
    """One line, exit code 1."""
    (tmp_path / "client.properties").write_text(f"# comment\n{text}\n")
    refused = senselog("--client-config", str(tmp_path / "client.properties"), "topic", "list")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert message in refused.stderr
