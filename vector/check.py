"""Verification of index directories (`senselog check`). Reads only; a broker must not be running on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from storage.check import Problem
from vector.arrays import Int64
from vector.generation import FILE, STATE_FILE, damages
from vector.index import manifest as manifests
from vector.index.catalog import sealed_file_names
from vector.index.columns import Columns, distinct
from vector.index.fields import Fields
from vector.index.fields import check as check_fields
from vector.index.files import DAMAGED_DIRECTORY, DamagedFile, file_names, read
from vector.index.journal import journal_name, replay
from vector.index.manifest import MANIFEST_NAME, Entry, Manifest
from vector.index.sealed import SealedSegment
from vector.index.segment_files import segment_name
from vector.index.settings import IndexSettings


def check_index(directory: Path) -> list[Problem]:
    """Every fault of the index in `directory` and of the indexes in folders below it; [] when all is well."""
    problems: list[Problem] = []
    topics = {path.parent for path in directory.rglob(STATE_FILE)} | {
        path.parent.parent for path in directory.rglob(FILE)
    }
    for topic in sorted(topics):
        problems += [Problem(damage.path, damage.reason) for damage in damages(topic)]
    manifests_found = sorted(path for path in directory.rglob(MANIFEST_NAME) if DAMAGED_DIRECTORY not in path.parts)
    for path in manifests_found:
        problems += _check_directory(path.parent)
    return problems


def _check_directory(directory: Path) -> list[Problem]:
    path = directory / MANIFEST_NAME
    try:
        manifest = manifests.load(directory)
    except (DamagedFile, KeyError, TypeError, ValueError) as error:
        return [Problem(path, f"unreadable: {error}")]
    if manifest is None:
        return []
    problems = _check_order(path, manifest)
    for entry in (*manifest.entries, *manifest.reserve):
        try:
            problems += (
                _check_sealed(directory, entry)
                if entry.kind == "sealed"
                else _check_journal(directory, entry, manifest)
            )
        except DamagedFile as damage:
            problems.append(Problem(damage.path, damage.reason))
    return problems + _check_unnamed(directory, manifest)


def _check_order(path: Path, manifest: Manifest) -> list[Problem]:
    problems = []
    for before, after in zip(manifest.entries, manifest.entries[1:], strict=False):
        if before.next_offset != after.base_offset:
            message = f"segment {before.identity} ends at {before.next_offset}, {after.identity} begins at {after.base_offset}"
            problems.append(Problem(path, message))
    if any(entry.identity >= manifest.next_identity for entry in manifest.entries):
        problems.append(Problem(path, "a segment has an identity that has not been given out"))
    return problems


def _check_sealed(directory: Path, entry: Entry) -> list[Problem]:
    name = segment_name(entry.identity)
    segment = SealedSegment.open(directory, name)
    path = directory / name
    wrong = []
    if (segment.base_offset, segment.next_offset) != (entry.base_offset, entry.next_offset):
        wrong.append(f"covers [{segment.base_offset}, {segment.next_offset}), the manifest says otherwise")
    wrong += _check_columns(segment.columns, segment.base_offset, segment.next_offset)
    everything: Int64 = np.arange(segment.node_count, dtype=np.int64)
    if not np.array_equal(segment.nodes_of(segment.hashes_of(everything)), everything):
        wrong.append("the order of content hashes does not find every content")
    found = segment.postings_of(everything)[1].tolist()
    if sorted(found) != list(range(segment.posting_count)):
        wrong.append("the postings of all vectors are not all postings")
    wrong += _check_fields(segment.fields, segment.columns)
    return [Problem(path, message) for message in wrong]


def _check_journal(directory: Path, entry: Entry, manifest: Manifest) -> list[Problem]:
    path = directory / journal_name(entry.identity)
    storage = "fp32"  # rows are not looked at, so the precision does not matter
    settings = IndexSettings(dimensions=manifest.dimensions, metric=manifest.metric, storage=storage)  # type: ignore[arg-type]
    result = replay(path, read(path), entry.identity, entry.base_offset, settings)
    wrong = [result.damage] if result.damage else []
    if not wrong and entry.next_offset not in (-1, result.segment.next_offset):
        wrong.append(f"reaches offset {result.segment.next_offset}, the manifest says {entry.next_offset}")
    wrong += _check_columns(result.segment.view().columns, entry.base_offset, result.segment.next_offset)
    wrong += _check_fields(result.segment.view().fields, result.segment.view().columns)
    if result.segment.counts.indexed != distinct(result.segment.view().columns.offsets):
        wrong.append("the count of indexed records is not that of its rows")
    return [Problem(path, message) for message in wrong]


def _check_columns(columns: Columns, base_offset: int, next_offset: int) -> list[str]:
    wrong = []
    if len(columns):
        if (np.diff(columns.offsets) < 0).any():
            wrong.append("offsets are not ascending")
        if columns.offsets[0] < base_offset or columns.offsets[-1] >= next_offset:
            wrong.append(f"an offset lies outside [{base_offset}, {next_offset})")
        if not np.array_equal(np.unique(columns.nodes), np.arange(columns.node_count)):
            wrong.append("a vector belongs to no record, or a record to no vector")
    return wrong


def _check_fields(parts: Sequence[Fields], columns: Columns) -> list[str]:
    wrong = [message for part in parts for message in check_fields(part)]
    if sum(part.count for part in parts) != distinct(columns.offsets):
        wrong.append("the fields are not those of its records")
    return wrong


def _check_unnamed(directory: Path, manifest: Manifest) -> list[Problem]:
    """Files of a build that was cut by a crash: harmless, removed at the next start, and so no problem; anything else is."""
    named = {MANIFEST_NAME}
    for entry in (*manifest.entries, *manifest.reserve):
        named |= {journal_name(entry.identity)} if entry.kind == "growing" else set(sealed_file_names(entry.identity))
    known = ("segment-", "growing-", MANIFEST_NAME)
    strays = [name for name in file_names(directory) if name not in named and not name.startswith(known)]
    return [Problem(directory / name, "belongs to no index") for name in strays]
