"""The vector index of one partition: one owner appends, seals and swaps; any thread may search.

The identity that always holds: indexed + skipped + failed = records of the log below `indexed_offset`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np

from vector.arrays import Float32, Int64
from vector.index import manifest as manifests
from vector.index.build import Built, build
from vector.index.catalog import AnySegment, Catalog, entry_of, open_catalog, sealed_file_names, segment_file_names
from vector.index.columns import distinct, postings_at
from vector.index.files import AppendFile, remove
from vector.index.growing import GrowingSegment
from vector.index.journal import encode_frame, journal_name
from vector.index.manifest import Entry, Manifest
from vector.index.planner import LANES, MERGE_MIN, Lane, Plan, SegmentFacts, next_plan, should_drop, should_freeze
from vector.index.query import Candidate, IndexQuery, RecordFilter, query_vector, record_filter
from vector.index.scan import singles
from vector.index.scoring import storable
from vector.index.sealed import SealedSegment
from vector.index.search import Part, SearchCounters, plan, search
from vector.index.segment_files import COLUMNS_SUFFIX, segment_name
from vector.index.selection import ReadRecords, between, read_nothing
from vector.index.settings import HASH_BYTES, Counts, IndexSettings, Run
from vector.index.snapshot import Snapshot

PENDING_BYTES_MAX = 32 * 1024 * 1024
"""Frames held for the next checkpoint; more than this is written at once."""
FROZEN_MAX = 4
"""Full growing segments that may wait for the builder before `backlogged` asks the indexer to pause (8 MB each)."""
PASSED_MAX = 2 * MERGE_MIN
"""Segments that may be sealed while one merge goes on before `backlogged` asks for the same: each is scanned, for 0.22 ms, until it is
merged, and a merge, at the lowest priority, takes as long as others leave it no processor."""
BUILD_RETRY_S = 30.0


@dataclass(slots=True, frozen=True)
class BuildTask:
    """A plan with all that its build reads; the sources never change."""

    plan: Plan
    identity: int
    sources: tuple[AnySegment, ...]
    log_start_offset: int
    buried: Int64


class PartitionIndex:
    """See the module. Create with `open`."""

    def __init__(
        self, directory: Path, settings: IndexSettings, catalog: Catalog, monotonic: Callable[[], float]
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.damages = catalog.damages
        self._monotonic = monotonic
        self._log_start_offset = catalog.log_start_offset
        self._buried = np.empty(0, dtype=np.int64)
        self._next_identity = catalog.next_identity
        self._dropped = catalog.dropped
        self._segments: tuple[AnySegment, ...] = tuple(catalog.segments)
        self._reserve: tuple[AnySegment, ...] = tuple(catalog.reserve)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._growing_since: float | None = None
        self._tasks: dict[Lane, BuildTask] = {}
        self._passed = 0
        """Seals since the merge under way began."""
        self._plan_not_before: dict[Lane, float] = {}
        self._build_errors: dict[Lane, str] = {}
        self._closed = False
        self.empty_bytes = GrowingSegment(0, 0, settings).memory_bytes
        """RAM of a segment that begins."""
        self._counters = SearchCounters()
        if catalog.continues and isinstance(self._segments[-1], GrowingSegment):
            self._growing = self._segments[-1]
            self._journal = AppendFile(directory / journal_name(self._growing.identity))
        else:
            self._start_growing(catalog.next_offset)
        self._checkpointed_offset = self._growing.next_offset
        self._store_manifest()

    @classmethod
    def open(cls, directory: Path, settings: IndexSettings, *, monotonic: Callable[[], float] = time.monotonic) -> Self:
        """Opens or creates the index in `directory`. Damaged files are set aside and `indexed_offset` falls back (`damages` says
        why). Raises ValueError for an index of other dimensions or metric, OSError when the disk does."""
        return cls(directory, settings, open_catalog(directory, settings), monotonic)

    # Freshness and accounting

    @property
    def indexed_offset(self) -> int:
        """Exclusive: every record below is searchable, skipped or failed, and counted."""
        return self._growing.next_offset

    @property
    def checkpointed_offset(self) -> int:
        """What `indexed_offset` would be after a crash now."""
        return self._checkpointed_offset

    @property
    def counts(self) -> Counts:
        total = self._dropped
        for segment in self._segments:
            total = total + segment.counts
        return total

    @property
    def failed(self) -> int:
        """That of `counts`, which every search tells."""
        return self._dropped.failed + sum(segment.counts.failed for segment in self._segments)

    @property
    def backlogged(self) -> bool:
        """Whether the builder is so far behind that the indexer must wait; memory and the time of a search are bounded by this."""
        return (
            self._passed >= PASSED_MAX
            or sum(isinstance(segment, GrowingSegment) for segment in self._segments) > FROZEN_MAX
        )

    def known_vectors(self, hashes: Sequence[bytes]) -> dict[bytes, Float32]:
        """Stored vectors, float32[d], of those contents that this partition has seen."""
        found: dict[bytes, Float32] = {}
        missing = list(dict.fromkeys(hashes))
        for segment in (*reversed(self._segments), *self._reserve):
            if not missing:
                break
            view = segment.view()
            nodes = view.nodes_of(missing)
            if (nodes >= 0).any():
                places = np.flatnonzero(nodes >= 0)
                for place, row in zip(places.tolist(), singles(view.rows(nodes[places])), strict=True):
                    found[missing[place]] = row
                missing = [content for content in missing if content not in found]
        return found

    @property
    def first_offset(self) -> int:
        """Below, the index holds nothing."""
        return max(self._log_start_offset, self._segments[0].base_offset)

    def offsets_between(self, start: int, end: int) -> Int64:
        """Of the records in [start, end) that may be hits, ascending: int64[n]. Any thread."""
        offsets = [between(segment.view().columns.offsets, start, end) for segment in self._segments]
        found: Int64 = np.setdiff1d(np.concatenate(offsets), self._buried)
        return found

    def vectors_at(self, offsets: Sequence[int]) -> dict[int, Float32]:
        """Stored vectors, float32[d], of those records that are indexed; of a chunked one, the first chunk's. Any thread."""
        found: dict[int, Float32] = {}
        wanted = np.unique(np.asarray(offsets, dtype=np.int64))
        for segment in self._segments:
            view = segment.view()
            columns = view.columns
            places = np.searchsorted(columns.offsets, wanted)
            here = places < len(columns)
            here[here] = columns.offsets[places[here]] == wanted[here]
            if here.any():
                rows = singles(view.rows(columns.nodes[places[here]].astype(np.int64)))
                found.update(zip(wanted[here].tolist(), rows, strict=True))
        return found

    # Writing: the owner's thread only

    def append(self, run: Run) -> None:
        """Makes a run searchable. Raises ValueError when it does not follow on `indexed_offset` or is malformed.

        Raises OSError when a checkpoint or seal that it set off failed: the run is in all the same, only not yet durable.
        """
        self._check(run)
        base_offset = self._growing.next_offset
        if self._growing_since is None:
            self._growing_since = self._monotonic()
        known = self._growing.node_count
        new_rows = self._growing.append(run)
        new = range(known, self._growing.node_count)
        texts = [self._growing.text(node) for node in new] if self.settings.texts else None
        frame = encode_frame(base_offset, run, new_rows, texts, self.settings)
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        if should_freeze(self._facts(self._growing), self.settings):
            self._freeze()
        elif self._pending_bytes > PENDING_BYTES_MAX:
            self.checkpoint()

    def growth_bytes(self, run: Run) -> int:
        """The most that `memory_bytes` rises by when the run is appended; `empty_bytes` come on top where a segment begins."""
        return self._growing.growth_bytes(run)

    def seal_early(self) -> bool:
        """Ends the growing segment, if it is worth one of its own, so that a build may make it smaller; whether it has."""
        if self._closed or self.backlogged or self._growing.node_count < self.settings.seal_rows_min:
            return False
        self._freeze()
        return True

    def _check(self, run: Run) -> None:
        count = len(run.offsets)
        shapes = {len(run.timestamps_ms), len(run.hashes), len(run.flags), len(run.vectors), count}
        if len(shapes) != 1 or run.vectors.shape != (count, self.settings.dimensions):
            raise ValueError(
                f"a run of {count} rows has columns of {sorted(shapes)} and vectors of {run.vectors.shape}"
            )
        if any(len(content) != HASH_BYTES for content in run.hashes):
            raise ValueError(f"a content hash is not {HASH_BYTES} bytes long")
        if run.next_offset < self.indexed_offset:
            raise ValueError(f"the run ends at {run.next_offset}, {self.indexed_offset} is indexed")
        if count:
            ascending = bool((run.offsets[1:] >= run.offsets[:-1]).all())
            if not ascending or run.offsets[0] < self.indexed_offset or run.offsets[-1] >= run.next_offset:
                raise ValueError(f"offsets are not ascending within [{self.indexed_offset}, {run.next_offset})")
            if run.fields is not None and run.fields.count != distinct(run.offsets):
                raise ValueError(f"fields of {run.fields.count} records came with {distinct(run.offsets)}")
            if not storable(run.vectors, self.settings).all():
                raise ValueError("a vector is not finite, or has no direction: `storable` tells which")

    def checkpoint(self) -> None:
        """Makes everything appended so far durable. Raises OSError; nothing is lost then, the next call tries again."""
        if self._manifest_stale:  # the journal is not named yet: the disk was full
            self._store_manifest()
        if self._pending:
            self._journal.append_durable(self._pending)
            self._pending, self._pending_bytes = [], 0
        self._checkpointed_offset = self._growing.next_offset
        done = [segment for segment in self._reserve if segment.next_offset <= self._checkpointed_offset]
        if done:
            self._reserve = tuple(segment for segment in self._reserve if segment not in done)
            self._store_manifest()
            self._remove(done)

    def _freeze(self) -> None:
        """Ends the growing segment and starts the next; a builder seals the frozen one, which serves until then."""
        self.checkpoint()
        finished = self._journal
        self._start_growing(self._growing.next_offset)
        finished.close()
        self._store_manifest()

    def _start_growing(self, base_offset: int) -> None:
        identity = self._take_identity()
        self._journal = AppendFile(self.directory / journal_name(identity))
        self._growing = GrowingSegment(identity, base_offset, self.settings)
        self._growing_since = None
        self._manifest_stale = True
        self._segments = (*self._segments, self._growing)

    def drop_below(self, log_start_offset: int) -> None:
        """Forgets records below the log's start; segments that hold nothing else are deleted."""
        self._log_start_offset = max(self._log_start_offset, log_start_offset)
        gone = [s for s in self._segments if should_drop(self._facts(s), self._log_start_offset)]
        if not gone:
            return
        for segment in gone:
            self._dropped = self._dropped + segment.counts
        self._segments = tuple(segment for segment in self._segments if segment not in gone)
        self._store_manifest()
        self._remove(gone)

    def bury(self, offsets: Sequence[int] | Int64) -> None:
        """Forgets records that compaction has removed from the log; builds leave them out. Not durable: whoever says so says it again."""
        self._buried = np.union1d(self._buried, np.asarray(offsets, dtype=np.int64))

    def truncate(self, log_end_offset: int) -> None:
        """Takes back what lies at or above the end of a log that lost its tail; `indexed_offset` falls back to a segment's start.

        Vectors of what is taken back stay known, so a replay embeds nothing again.
        """
        kept = [segment for segment in self._segments if segment.next_offset <= log_end_offset]
        lost = self._segments[len(kept) :]
        self._buried = self._buried[self._buried < log_end_offset]
        if not lost:
            return
        self.checkpoint()
        finished = self._journal
        self._reserve = (*self._reserve, *lost)
        self._segments = tuple(kept)
        self._start_growing(lost[0].base_offset)
        finished.close()
        self._checkpointed_offset = self._growing.next_offset
        self._store_manifest()

    def close(self) -> None:
        """Checkpoints and closes. A build under way is wasted: its files are removed at the next open.

        From here on nothing is written, by `swap` neither: the folder may already be another PartitionIndex's.
        """
        self._closed = True
        self.checkpoint()
        self._journal.close()

    # Building: plan and swap in the owner's thread, build in any

    def plan(self) -> BuildTask | None:
        """The next build beside those under way, None when there is none; answered by `swap` or `abandon`, in any order."""
        now, never = self._monotonic(), -float("inf")
        lanes = [o for o in LANES if o not in self._tasks and now >= self._plan_not_before.get(o, never)]
        if self._closed or not lanes:
            return None
        if should_freeze(self._facts(self._growing), self.settings):
            self._freeze()
        plan = next_plan([self._facts(segment) for segment in self._segments], self.settings, lanes)
        if plan is None:
            return None
        sources = tuple(segment for segment in self._segments if segment.identity in plan.sources)
        task = BuildTask(plan, self._take_identity(), sources, self._log_start_offset, self._buried)
        self._tasks[plan.lane] = task
        return task

    def _ended(self, task: BuildTask) -> None:
        del self._tasks[task.plan.lane]
        if "merge" not in self._tasks:
            self._passed = 0

    def build(self, task: BuildTask) -> Built:
        """Builds the planned segment; slow, touches only new files. Raises OSError, DamagedFile."""
        return build(self.directory, task.identity, task.sources, task.log_start_offset, task.buried, self.settings)

    def swap(self, task: BuildTask, built: Built) -> bool:
        """Replaces the sources by what was built, atomically; False when a source has been dropped, or the index closed, meanwhile."""
        if self._closed:
            return False
        self._ended(task)
        self._build_errors.pop(task.plan.lane, None)
        if not set(task.sources) <= set(self._segments):
            remove(self.directory, sealed_file_names(task.identity))
            return False
        first = self._segments.index(task.sources[0])
        end = first + len(task.sources)
        self._segments = (*self._segments[:first], built.segment, *self._segments[end:])
        gone = between(task.buried, built.segment.base_offset, built.segment.next_offset)
        self._buried = np.setdiff1d(self._buried, gone, assume_unique=True)
        self._passed += "merge" in self._tasks
        self._store_manifest()
        self._remove(task.sources)
        return True

    def abandon(self, task: BuildTask, error: Exception) -> None:
        """A build failed: its files go, status says why, and it is tried again after BUILD_RETRY_S."""
        if self._closed:
            return
        self._ended(task)
        self._build_errors[task.plan.lane] = f"{type(error).__name__}: {error}"
        self._plan_not_before[task.plan.lane] = self._monotonic() + BUILD_RETRY_S
        remove(self.directory, sealed_file_names(task.identity))

    @property
    def sealed_identities(self) -> tuple[int, ...]:
        """Of the segments that a snapshot holds. Any thread."""
        sealed = takewhile(lambda segment: isinstance(segment, SealedSegment), self._segments)
        return tuple(segment.identity for segment in sealed)

    def snapshot(self) -> Snapshot | None:
        """What an object store can keep: the sealed segments up to the first that is not; None while there are none."""
        sealed = list(takewhile(lambda segment: isinstance(segment, SealedSegment), self._segments))
        if not sealed:
            return None
        names = [
            [*(file.name for file in segment.header.files), segment_name(segment.identity) + COLUMNS_SUFFIX]
            for segment in sealed
            if isinstance(segment, SealedSegment)
        ]
        manifest = self._manifest(tuple(entry_of(segment) for segment in sealed), ())
        return Snapshot(self.directory, manifest, tuple(tuple(files) for files in names))

    # Searching: any thread

    def search(self, query: IndexQuery, read: ReadRecords = read_nothing) -> list[Candidate]:
        """min(query.limit, matches) records, best first: similarity descending, timestamp descending, offset ascending.

        Fewer only when `min_similarity` cuts. Raises KafkaError INVALID_REQUEST for a vector that is not finite, of the wrong
        length, or zero under cosine.
        """
        vector = query_vector(query, self.settings)
        return search(self.parts(record_filter(query), read), query, vector)

    def parts(self, wanted: RecordFilter, read: ReadRecords = read_nothing) -> list[Part]:
        """What of the index passes `wanted`; `read` is asked for records that have more than the index holds."""
        buried = self._buried if wanted.buried is None else np.union1d(self._buried, wanted.buried)
        bounded = replace(
            wanted, offset_from=max(wanted.offset_from, self._log_start_offset), buried=buried if len(buried) else None
        )
        views = [segment.view() for segment in self._segments]
        return plan(views, bounded, self.settings, self._counters, read)

    def let_go(self) -> None:
        """Makes what scans have brought in resident no more, where searches go by graphs. Any thread."""
        for segment in self._segments:
            if isinstance(segment, SealedSegment):
                segment.let_go()

    def status(self) -> dict[str, Any]:
        """JSON-able: offsets, counts, segments with sizes in bytes, how searches were served, damages, the builder's state."""
        counts = self.counts
        return {
            "indexed_offset": self.indexed_offset,
            "checkpointed_offset": self._checkpointed_offset,
            **counts.to_json(),
            "log_start_offset": self._log_start_offset,
            "segments": [_segment_status(s, growing=s is self._growing) for s in self._segments],
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "saved_by_dedupe": sum(segment.posting_count - segment.node_count for segment in self._segments),
            "searches": {name: getattr(self._counters, name) for name in SearchCounters.__slots__},
            "building": ", ".join(task.plan.reason for task in list(self._tasks.values())) or None,
            "build_error": "; ".join(list(self._build_errors.values())) or None,
            "damages": list(self.damages),
            "buried": len(self._buried),
            "reserve_segments": len(self._reserve),
        }

    @property
    def growing_bytes(self) -> int:
        """RAM of the rows that are not sealed, and not about to be."""
        return self._growing.memory_bytes

    @property
    def has_graph(self) -> bool:
        """Whether a search may walk a graph; until then all are exact."""
        return any(_has_graph(segment) for segment in self._segments)

    @property
    def node_count(self) -> int:
        """Of all segments together."""
        return sum(segment.node_count for segment in self._segments)

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def disk_bytes(self) -> int:
        return sum(_disk_bytes(segment) for segment in self._segments)

    @property
    def memory_bytes(self) -> int:
        """RAM that searching needs: growing rows on the heap; graphs and sidecars mapped (stored vectors stay in the page cache)."""
        return sum(
            s.memory_bytes if isinstance(s, GrowingSegment) else s.graph_bytes + s.column_bytes for s in self._segments
        )

    def _facts(self, segment: AnySegment) -> SegmentFacts:
        columns = segment.view().columns
        dead = int(np.searchsorted(columns.offsets, self._log_start_offset))
        buried = between(self._buried, max(segment.base_offset, self._log_start_offset), segment.next_offset)
        if len(buried):
            dead += int(np.count_nonzero(postings_at(columns, buried)))
        kind = "sealed" if isinstance(segment, SealedSegment) else "growing" if segment is self._growing else "frozen"
        since = self._growing_since if segment is self._growing else None
        return SegmentFacts(
            identity=segment.identity,
            kind=kind,  # type: ignore[arg-type]
            base_offset=segment.base_offset,
            next_offset=segment.next_offset,
            nodes=segment.node_count,
            postings=segment.posting_count,
            dead=dead,
            age_s=0.0 if since is None else self._monotonic() - since,
            graph=_has_graph(segment),
        )

    def _take_identity(self) -> int:
        self._next_identity += 1
        return self._next_identity - 1

    def _store_manifest(self) -> None:
        entries = tuple(entry_of(s, open_for_appends=s is self._growing) for s in self._segments)
        manifests.store(self.directory, self._manifest(entries, tuple(entry_of(s) for s in self._reserve)))
        self._manifest_stale = False

    def _manifest(self, entries: tuple[Entry, ...], reserve: tuple[Entry, ...]) -> Manifest:
        return Manifest(
            dimensions=self.settings.dimensions,
            metric=self.settings.metric,
            next_identity=self._next_identity,
            log_start_offset=self._log_start_offset,
            dropped=self._dropped,
            entries=entries,
            reserve=reserve,
        )

    def _remove(self, segments: Iterable[AnySegment]) -> None:
        remove(self.directory, [name for segment in segments for name in segment_file_names(segment)])


def _segment_status(segment: AnySegment, *, growing: bool) -> dict[str, Any]:
    status: dict[str, Any] = {
        "kind": "growing" if growing else "frozen",
        "base_offset": segment.base_offset,
        "next_offset": segment.next_offset,
        "vectors": segment.node_count,
        "records": segment.posting_count,
    }
    if isinstance(segment, GrowingSegment):
        return {**status, "bytes": segment.memory_bytes}
    return {
        **status,
        "kind": "sealed",
        "bytes": _disk_bytes(segment),
        "graph_trust": [
            {"closeness_min": t.closeness_min, "levels": [list(level) for level in t.levels]}
            for t in segment.graph_trust
        ],
        "recall": segment.header.recall,
    }


def _has_graph(segment: AnySegment) -> bool:
    return isinstance(segment, SealedSegment) and bool(segment.graph_trust)


def _disk_bytes(segment: AnySegment) -> int:
    if isinstance(segment, GrowingSegment):
        return 0
    return segment.graph_bytes + segment.vector_bytes + segment.column_bytes + segment.text_bytes
