"""kcat 1.7.1, which Debian builds with librdkafka 2.0.2: the oldest feature probe we meet. Each operation runs the command."""

import json
import subprocess
import threading
from typing import Any

from common import HEARTBEAT_MS, SESSION_TIMEOUT_MS, TIMEOUT_S, Driver, Record, serve

# One JSON envelope a record; kcat's own -J leaves no way to tell two headers of one name apart, which nobody here needs.
ENVELOPE = ["-J", "-q"]


class Kcat(Driver):
    def __init__(self) -> None:
        super().__init__()
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.seen: dict[str, list[Record]] = {}

    def command(self, *arguments: str) -> list[str]:
        names = {
            "protocol": "security.protocol",
            "mechanism": "sasl.mechanism",
            "username": "sasl.username",
            "password": "sasl.password",
            "ca": "ssl.ca.location",
            "certificate": "ssl.certificate.location",
            "key": "ssl.key.location",
        }
        given = [f"-X{names[key]}={value}" for key, value in self.security.items() if key in names]
        return ["kcat", "-b", self.bootstrap, *given, *arguments]

    def kcat(self, *arguments: str, stdin: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode or "does not support" in done.stderr:
            raise RuntimeError(done.stderr[-2000:])
        return done.stdout

    def list_topics(self) -> list[str]:
        return [topic["topic"] for topic in json.loads(self.kcat("-L", "-J"))["topics"]]

    def producer(self, name: str, codec: str = "none", idempotent: bool = True) -> None:
        self.producers[name] = ["-z", codec, "-X", f"enable.idempotence={str(idempotent).lower()}"]

    def send(self, name: str, topic: str, partition: int, records: list[Any]) -> list[int]:
        """Runs kcat once for the records of one run of equal headers, which are options of the command."""
        while records:
            count = next((n for n, entry in enumerate(records) if entry[2] != records[0][2]), len(records))
            headers = [option for name_, value in records[0][2] for option in ("-H", f"{name_}={value}")]
            lines = "".join(f"{key or ''}|{value or ''}\n" for key, value, _ in records[:count])
            self.kcat(
                "-P", "-t", topic, "-p", str(partition), "-K|", "-Z", *headers, *self.producers[name], stdin=lines
            )
            records = records[count:]
        return []  # kcat does not tell

    def close_producer(self, name: str) -> None:
        del self.producers[name]

    def read(self, topic: str, start: dict[str, int], count: int, committed: bool, timeout_s: float) -> list[Record]:
        place = (
            str(start["offset"])
            if "offset" in start
            else f"s@{start['time_ms']}"
            if "time_ms" in start
            else "beginning"
        )
        isolation = f"-Xisolation.level=read_{'' if committed else 'un'}committed"
        shown = self.kcat("-C", "-t", topic, "-p", "0", "-o", place, "-e", isolation, *ENVELOPE)
        return [record(line) for line in shown.splitlines()][:count]

    def member(self, name: str, topic: str, group: str, instance: str = "", protocol: str = "classic") -> None:
        options = {
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "auto.commit.interval.ms": 100,
            **({"group.instance.id": instance} if instance else {}),
        }
        settings = [f"-X{key}={value}" for key, value in options.items()]
        process = subprocess.Popen(
            self.command("-u", *settings, *ENVELOPE, "-G", group, topic), stdout=subprocess.PIPE, text=True
        )
        self.running[name], self.seen[name] = process, []

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self.seen[name].append(record(line))

        threading.Thread(target=follow, daemon=True).start()

    def state(self, name: str) -> dict[str, Any]:
        """kcat does not say what it owns in a way that a program could read."""
        if self.running[name].poll() is not None:
            raise RuntimeError(f"kcat ended with {self.running[name].returncode}")
        got = list(self.seen[name])
        del self.seen[name][: len(got)]
        return {"assigned": None, "records": got}

    def leave(self, name: str) -> list[Record]:
        self.running[name].terminate()
        self.running.pop(name).wait(TIMEOUT_S)
        return self.seen.pop(name)


def record(line: str) -> Record:
    shown = json.loads(line)
    pairs = iter(shown.get("headers", ()))
    return [
        shown["partition"],
        shown["offset"],
        shown["key"],
        shown["payload"],
        [list(pair) for pair in zip(pairs, pairs, strict=True)],
    ]


serve(Kcat())
