"""A second machine's worth of network: a namespace of the test's own, joined to this one by a cable that can be pulled out."""

import os
import shutil
import subprocess
from collections.abc import Sequence

HERE, THERE = "198.18.71.1", "198.18.71.2"  # RFC 2544: for tests between two devices, routed nowhere
MISSING = "" if os.geteuid() == 0 and shutil.which("ip") else "a network namespace needs root and iproute2"


class Cable:
    """Between HERE, where the test and the broker are, and THERE."""

    def __init__(self) -> None:
        """Raises CalledProcessError where the kernel allows no namespaces."""
        self.namespace = f"senselog-{os.getpid()}"
        self._end = f"sl{os.getpid()}"
        _ip("netns", "add", self.namespace)
        try:
            _ip("link", "add", self._end, "type", "veth", "peer", "name", "cable", "netns", self.namespace)
            _ip("address", "add", f"{HERE}/30", "dev", self._end)
            _ip("-n", self.namespace, "address", "add", f"{THERE}/30", "dev", "cable")
            _ip("-n", self.namespace, "link", "set", "cable", "up")
            self.plug_in()
        except subprocess.CalledProcessError:
            self.remove()
            raise

    def command(self, command: Sequence[str]) -> list[str]:
        """Of a process that runs there."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def pull_out(self) -> None:
        """Packets vanish; no end is told."""
        _ip("link", "set", self._end, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._end, "up")

    def remove(self) -> None:
        """The cable goes with the namespace."""
        _ip("netns", "delete", self.namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
