"""A kill or a power failure at every file operation of a topic's generations: creation, building, cut-over, going back, clean-up.

And one flipped bit anywhere in their files.
"""

import logging
import shutil
from pathlib import Path
from random import Random

import pytest

from tests.crash_images import WatchedFolder
from vector.check import check_index
from vector.generation import FILE, STATE_FILE, Generation, Generations, Identity

INDEX = "what took hours to embed"


def identity(model: str) -> Identity:
    return Identity("value", "chunk", model, "1", 16, "cosine")


def complete(generation: Generation | None) -> None:
    assert generation is not None
    (generation.directory / INDEX).mkdir(exist_ok=True)  # a folder: its content is another test's


class Topic:
    """Its folder, and which generations may be live after a crash now."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root / "topic"
        self.root.mkdir(parents=True)
        self.scratch = root / "image"
        self.chance = Random(seed)
        self.allowed: set[int | None] = {None}
        self.images = 0
        self.folder = WatchedFolder(self.root, self.crash)

    def crash(self, operation: str) -> None:
        for take in (self.folder.after_kill, lambda to: self.folder.after_power_failure(to, self.chance)):
            take(self.scratch)
            found = Generations(self.scratch)
            live = found.live
            assert (live and live.number) in self.allowed, f"{operation}: {live} is live, allowed: {self.allowed}"
            for one in (live, found.previous):  # what is searched or may be gone back to is whole
                assert one is None or one.number == 1 or (one.directory / INDEX).is_dir(), operation
            assert check_index(self.scratch) == [], operation
            found.want(identity("four"))  # it goes on from there
            found.clean()
            again = Generations(self.scratch)
            assert again.roles == found.roles
            shutil.rmtree(self.scratch)
            self.images += 1

    def live(self) -> None:
        with self.folder.watched():
            generations = Generations(self.root)
            self.allowed = {None, 1}
            generations.want(identity("one"))
            self.allowed = {1}
            for number, model in ((2, "two"), (3, "three")):
                generations.want(identity(model))
                complete(generations.building)
                self.folder._synced(str(self.root / str(number)))  # as an index syncs its own folder
                self.allowed = {number - 1, number}
                generations.cut_over(number, 1000 * number)
                self.allowed = {number}
                generations.clean()
            generations.go_back()
            self.allowed = {2, 3}
            generations.cut_over(2, 4000)
            self.allowed = {2}
            generations.expire(9000, keep_ms=1000)
            generations.clean()


@pytest.mark.parametrize("seed", range(5))
def test_a_crash_at_every_step_of_a_cut_over(tmp_path: Path, seed: int) -> None:
    """Live is what was or what is to be, never half of it, and never nothing once there was one."""
    topic = Topic(tmp_path, seed)
    topic.live()
    assert topic.images > 50


@pytest.mark.parametrize("name", [STATE_FILE, f"1/{FILE}", f"2/{FILE}"])
def test_a_flipped_bit_is_named(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """At every byte. Never an identity that nobody wrote: vectors of one model would be searched with another's."""
    generations = Generations(tmp_path)
    generations.want(identity("one"))
    generations.want(identity("two"))
    generations.cut_over(2, 1000)
    written = {1: identity("one"), 2: identity("two")}
    intact = (tmp_path / name).read_bytes()
    for position in range(len(intact)):
        data = bytearray(intact)
        data[position] ^= 1 << position % 8
        (tmp_path / name).write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = Generations(tmp_path)
        assert [problem.path for problem in check_index(tmp_path)] == [tmp_path / name]
        assert Path(name).name in caplog.text
        assert again.live is not None
        assert again.live.number == (1 if name == f"2/{FILE}" else 2)
        assert all(one.identity == written[one.number] for one in (again.live, again.previous) if one is not None)


def test_after_the_damage_the_log_is_indexed_anew(tmp_path: Path) -> None:
    Generations(tmp_path).want(identity("one"))
    (tmp_path / "1" / FILE).write_bytes(b"\0" * 100)
    again = Generations(tmp_path)
    assert again.live is None
    again.want(identity("one"))
    again.clean()
    assert again.live is not None
    assert again.live.number == 2
    assert check_index(tmp_path) == []
