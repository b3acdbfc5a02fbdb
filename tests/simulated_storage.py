"""A disk, threads and a clock in memory: unsynced writes can be lost, every call can be the last one."""

import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from storage.errors import DirectoryLocked
from storage.file_system import Buffer

SECTOR = 512


class SimulatedCrash(BaseException):
    """The machine stops here. Not an Exception: nothing may handle it."""


class Node:
    """A file: what the page cache holds, what the disk holds, and the writes in between."""

    def __init__(self) -> None:
        self.current = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []

    def resize(self, size: int) -> None:
        if size == len(self.current):
            return
        try:
            if size < len(self.current):
                del self.current[size:]
            else:
                self.current.extend(bytes(size - len(self.current)))
        except BufferError:
            # Mapped: the mapping keeps the old bytes, which nobody rewrites.
            self.current = bytearray(self.current[:size].ljust(size, b"\0"))

    def write(self, position: int, data: bytes) -> None:
        if position + len(data) > len(self.current):
            self.resize(position + len(data))
        self.current[position : position + len(data)] = data
        self.unsynced.append((position, data))

    def sync(self) -> None:
        self.durable = bytearray(self.current)
        self.unsynced.clear()

    def lose_power(self, chance: random.Random) -> None:
        """Each unsynced write reaches the disk whole, torn at a sector, or not at all."""
        survived = bytearray(self.durable)
        if len(self.current) < len(survived) and chance.random() < 0.5:
            del survived[len(self.current) :]
        for position, data in self.unsynced:
            fate = chance.random()
            if fate < 0.4:
                continue
            if fate < 0.7 and len(data) > SECTOR:
                # The disk orders nothing: any of the sectors may be missing.
                hole = chance.randrange(len(data) // SECTOR) * SECTOR
                for start, end in ((0, hole), (hole + SECTOR, len(data))):
                    if end > start:
                        if position + end > len(survived):
                            survived.extend(bytes(position + end - len(survived)))
                        survived[position + start : position + end] = data[start:end]
                continue
            if position + len(data) > len(survived):
                survived.extend(bytes(position + len(data) - len(survived)))
            survived[position : position + len(data)] = data
        self.current, self.durable, self.unsynced = survived, bytearray(survived), []


class Directory:
    """Names: as seen now, as on the disk, and the changes in between."""

    def __init__(self) -> None:
        self.current: dict[str, Node | Directory] = {}
        self.durable: dict[str, Node | Directory] = {}
        self.changes: list[dict[str, Node | Directory | None]] = []

    def apply(self, change: dict[str, "Node | Directory | None"]) -> None:
        _apply(self.current, change)
        self.changes.append(change)

    def sync(self) -> None:
        self.durable = dict(self.current)
        self.changes.clear()

    def lose_power(self, chance: random.Random) -> None:
        for change in self.changes[: chance.randint(0, len(self.changes))]:
            _apply(self.durable, change)
        self.current, self.changes = dict(self.durable), []
        for child in self.current.values():
            child.lose_power(chance)


def _apply(names: dict[str, Node | Directory], change: dict[str, "Node | Directory | None"]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class SimulatedMapping:
    def __init__(self, node: Node, size: int) -> None:
        self._memory = node.current
        self._size = size
        self.view = memoryview(node.current).toreadonly()[:size]

    def idle(self) -> bool:
        self.view.release()
        try:
            self._memory.append(0)
            del self._memory[-1]
        except BufferError:
            return False
        self.view = memoryview(self._memory).toreadonly()[: self._size]
        return True

    def close(self) -> None:
        self.view.release()


class SimulatedFile:
    def __init__(self, disk: "SimulatedFileSystem", node: Node) -> None:
        self._disk = disk
        self._node = node
        self._boot = disk.boots
        self._closed = False
        self.on_close: Callable[[], None] = lambda: None

    def _check(self) -> None:
        assert not self._closed, "used after close"
        assert self._boot == self._disk.boots, "used after a crash"

    def write(self, buffers: Sequence[Buffer], position: int) -> int:
        self._check()
        assert len(buffers) <= 1024
        data = b"".join(buffers)
        self._disk.step(lambda: self._node.write(position, data[: self._disk.chance.randrange(len(data) + 1)]))
        data = self._disk.admit(self._node, position, data)
        self._node.write(position, data)
        return len(data)

    def read(self, position: int, size: int) -> bytes:
        self._check()
        return bytes(self._node.current[position : position + size])

    def size(self) -> int:
        self._check()
        return len(self._node.current)

    def truncate(self, size: int) -> None:
        self._check()
        self._disk.step()
        self._node.resize(size)
        self._node.unsynced = [(at, data[: max(size - at, 0)]) for at, data in self._node.unsynced if at < size]

    def allocate(self, size: int) -> None:
        self._check()
        self._disk.step()
        if self._disk.used() + size - len(self._node.current) > self._disk.capacity:
            raise OSError(errno.ENOSPC, "no space left")
        self._node.resize(max(size, len(self._node.current)))

    def reserve(self, position: int, size: int) -> None:
        self._check()

    def sync(self) -> None:
        self._check()
        self._disk.step()
        if self._disk.sync_error:
            raise OSError(errno.EIO, "the disk failed")
        self._node.sync()

    def map(self, size: int) -> SimulatedMapping:
        self._check()
        assert size <= len(self._node.current)
        return SimulatedMapping(self._node, size)

    def resident(self, position: int, size: int) -> bool:
        return not self._disk.cold

    def load(self, position: int, size: int) -> None:
        self._check()

    def duplicate(self) -> "SimulatedFile":
        return SimulatedFile(self._disk, self._node)

    def close(self) -> None:
        self._closed = True
        self.on_close()


class SimulatedFileSystem:
    """`storage.file_system.FileSystem` in memory."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.root = Directory()
        self.boots = 0
        self.steps = 0
        self.crash_at = -1
        self.capacity = 1 << 40
        self.free: int | None = None
        self.sync_error = False
        self.short_write = False
        self.cold = False
        self.locked: set[Path] = set()

    def step(self, before_crash: Callable[[], None] = lambda: None) -> None:
        """Every call that changes something; the machine may stop in the middle of it."""
        self.steps += 1
        if self.steps == self.crash_at:
            before_crash()
            raise SimulatedCrash

    def admit(self, node: Node, position: int, data: bytes) -> bytes:
        """What of a write the disk has room for; ENOSPC for none of it."""
        if self.short_write and len(data) > 1:
            return data[: len(data) // 2]
        room = self.capacity - self.used() + max(len(node.current) - position, 0)
        if room <= 0 and data:
            raise OSError(errno.ENOSPC, "no space left")
        return data[:room]

    def used(self) -> int:
        return sum(len(node.current) for _, node in self.files())

    def files(self) -> list[tuple[Path, Node]]:
        found: list[tuple[Path, Node]] = []

        def walk(path: Path, directory: Directory) -> None:
            for name, child in directory.current.items():
                if isinstance(child, Directory):
                    walk(path / name, child)
                else:
                    found.append((path / name, child))

        walk(Path("/"), self.root)
        return found

    def lose_power(self) -> None:
        """The machine starts again; what had not been synced may be lost."""
        self.root.lose_power(self.chance)
        self.boots += 1
        self.crash_at = -1
        self.locked.clear()

    def kill(self) -> None:
        """The process ends; the page cache stays."""
        self.crash_at = -1
        self.locked.clear()

    def _parent(self, path: Path) -> Directory:
        directory = self._find(path.parent)
        if not isinstance(directory, Directory):
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path.parent))
        return directory

    def _find(self, path: Path) -> Node | Directory | None:
        node: Node | Directory | None = self.root
        for part in PurePosixPath(path).parts[1:]:
            if not isinstance(node, Directory):
                return None
            node = node.current.get(part)
        return node

    def open(self, path: Path, *, create: bool = False) -> SimulatedFile:
        node = self._find(path)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self.step()
            node = Node()
            self._parent(path).apply({path.name: node})
        assert isinstance(node, Node)
        return SimulatedFile(self, node)

    def exists(self, path: Path) -> bool:
        return self._find(path) is not None

    def list_directory(self, path: Path) -> dict[str, int]:
        node = self._find(path)
        if not isinstance(node, Directory):
            return {}
        return {
            name: -1 if isinstance(child, Directory) else len(child.current) for name, child in node.current.items()
        }

    def make_directory(self, path: Path) -> None:
        node = self.root
        for part in PurePosixPath(path).parts[1:]:
            child = node.current.get(part)
            if child is None:
                self.step()
                child = Directory()
                node.apply({part: child})
            assert isinstance(child, Directory)
            node = child

    def sync_directory(self, path: Path) -> None:
        self.step()
        node = self._find(path)
        assert isinstance(node, Directory), path
        node.sync()

    def sync_all(self, path: Path) -> None:
        self.step()

        def walk(directory: Directory) -> None:
            directory.sync()
            for child in directory.current.values():
                if isinstance(child, Directory):
                    walk(child)
                else:
                    child.sync()

        walk(self.root)

    def rename(self, source: Path, target: Path) -> None:
        self.step()
        assert source.parent == target.parent
        node = self._find(source)
        assert node is not None, source
        self._parent(source).apply({source.name: None, target.name: node})

    def remove(self, path: Path) -> None:
        if self._find(path) is not None:
            self.step()
            self._parent(path).apply({path.name: None})

    def remove_tree(self, path: Path) -> None:
        node = self._find(path)
        if isinstance(node, Directory):
            for name in list(node.current):
                self.remove(path / name)
            self.step()
            self._parent(path).apply({path.name: None})

    def free_bytes(self, path: Path) -> int:
        return self.capacity - self.used() if self.free is None else self.free

    def random_bytes(self, size: int) -> bytes:
        return self.chance.randbytes(size)

    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def lock(self, path: Path) -> SimulatedFile:
        if path in self.locked:
            raise DirectoryLocked(f"{path.parent} is in use by another broker (process 1)")
        self.locked.add(path)
        file = self.open(path, create=True)
        file.on_close = lambda: self.locked.discard(path)
        return file


class ManualWorker:
    """Jobs wait until the test runs them."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self._closed = False

    def submit(self, job: Callable[[], None], delay_s: float = 0.0) -> None:
        if self._closed:
            job()
        else:
            self.jobs.append(job)

    def run_one(self) -> bool:
        if not self.jobs:
            return False
        self.jobs.pop(0)()
        return True

    def wait(self) -> None:
        while self.run_one():
            pass

    def close(self) -> None:
        self.wait()
        self._closed = True


class ManualClock:
    """Stands still until moved."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms
        self.step_ms = 0
        """What looking at it takes: a slow machine."""

    def monotonic(self) -> float:
        self.now_ms += self.step_ms
        return self.now_ms / 1000

    def time_ms(self) -> int:
        return self.now_ms

    def advance(self, milliseconds: int) -> None:
        self.now_ms += milliseconds


class Machine:
    """A LogManager over the simulated disk, with its threads and loop in the test's hands."""

    def __init__(self, disk: SimulatedFileSystem, clock: ManualClock) -> None:
        self.disk = disk
        self.clock = clock
        self.workers: list[ManualWorker] = []
        self.callbacks: list[Callable[[], None]] = []

    def new_worker(self, _: str) -> ManualWorker:
        worker = ManualWorker()
        self.workers.append(worker)
        return worker

    def post(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def step(self, chance: random.Random) -> bool:
        """One callback of the loop or one job of a thread; False if there is nothing to do."""
        choices: list[Callable[[], object]] = [worker.run_one for worker in self.workers if worker.jobs]
        if self.callbacks:
            choices.append(lambda: self.callbacks.pop(0)())
        if not choices:
            return False
        chance.choice(choices)()
        return True

    def settle(self, chance: random.Random) -> None:
        """Everything that is under way."""
        while self.step(chance):
            pass
