"""Opening an index directory: what is intact, what is damaged, from which offset the log must be replayed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vector.index import manifest as manifests
from vector.index.files import DamagedFile, create_directory, file_names, read, remove, set_aside, truncate
from vector.index.growing import GrowingSegment
from vector.index.journal import JOURNAL_SUFFIX, journal_name, replay
from vector.index.manifest import MANIFEST_NAME, Entry, Manifest
from vector.index.sealed import SealedSegment
from vector.index.segment_files import (
    COLUMNS_SUFFIX,
    FIELDS_SUFFIX,
    GRAPH_SUFFIX,
    TEXTS_SUFFIX,
    VECTORS_SUFFIX,
    segment_name,
)
from vector.index.settings import Counts, IndexSettings

AnySegment = GrowingSegment | SealedSegment


@dataclass(slots=True)
class Catalog:
    """The segments of a directory. The last of `segments` takes further appends when `continues`; `base_offset` is where the first began."""

    segments: list[AnySegment] = field(default_factory=list)
    reserve: list[AnySegment] = field(default_factory=list)
    dropped: Counts = field(default_factory=Counts)
    next_identity: int = 1
    log_start_offset: int = 0
    base_offset: int = 0
    continues: bool = False
    damages: list[str] = field(default_factory=list)

    @property
    def next_offset(self) -> int:
        return self.segments[-1].next_offset if self.segments else self.base_offset


def segment_file_names(segment: AnySegment) -> list[str]:
    """Every file a segment may have."""
    if isinstance(segment, GrowingSegment):
        return [journal_name(segment.identity)]
    return sealed_file_names(segment.identity)


def sealed_file_names(identity: int) -> list[str]:
    """Every file a sealed segment may have; the columns last, so that a half-removed segment is seen as damaged."""
    name = segment_name(identity)
    return [name + suffix for suffix in (GRAPH_SUFFIX, VECTORS_SUFFIX, FIELDS_SUFFIX, TEXTS_SUFFIX, COLUMNS_SUFFIX)]


def entry_of(segment: AnySegment, *, open_for_appends: bool = False) -> Entry:
    """A segment as the manifest names it."""
    kind: manifests.Kind = "growing" if isinstance(segment, GrowingSegment) else "sealed"
    return Entry(kind, segment.identity, segment.base_offset, -1 if open_for_appends else segment.next_offset)


def open_catalog(directory: Path, settings: IndexSettings) -> Catalog:
    """Opens and verifies everything in `directory`, sets damaged files aside, removes what no manifest names.

    Raises ValueError when the directory holds an index of other dimensions or another metric: that is another generation.
    """
    create_directory(directory)
    catalog = Catalog()
    try:
        manifest = manifests.load(directory)
    except DamagedFile as damage:
        catalog.damages.append(str(damage))
        set_aside(damage.path)
        _salvage(directory, settings, catalog)
    else:
        if manifest is not None:
            _check_generation(manifest, settings)
            _open_entries(directory, manifest, settings, catalog)
    named = {name for segment in (*catalog.segments, *catalog.reserve) for name in segment_file_names(segment)}
    remove(directory, [name for name in file_names(directory) if name not in named and name != MANIFEST_NAME])
    return catalog


def _check_generation(manifest: Manifest, settings: IndexSettings) -> None:
    here = (manifest.dimensions, manifest.metric)
    if here != (settings.dimensions, settings.metric):
        raise ValueError(
            f"the index has {here[0]} dimensions and metric {here[1]}, not {settings.dimensions} and {settings.metric}"
        )


def _open_entries(directory: Path, manifest: Manifest, settings: IndexSettings, catalog: Catalog) -> None:
    catalog.dropped = manifest.dropped
    catalog.next_identity = manifest.next_identity
    catalog.log_start_offset = manifest.log_start_offset
    catalog.base_offset = manifest.entries[0].base_offset
    broken = False
    for entry in manifest.entries:
        segment, whole = _open_entry(directory, entry, settings, catalog)
        if segment is None:
            broken = True
        elif broken or _outdated(segment, settings):  # its vectors serve while the log is replayed, for what it lacks
            broken = True
            catalog.reserve.append(segment)
        else:
            catalog.segments.append(segment)
            # A growing segment takes the next run when it is the last of the intact ones.
            catalog.continues = isinstance(segment, GrowingSegment) and (entry.next_offset < 0 or not whole)
            broken = not whole
    for entry in manifest.reserve:
        segment, _ = _open_entry(directory, entry, settings, catalog)
        if segment is not None:
            catalog.reserve.append(segment)


def _outdated(segment: AnySegment, settings: IndexSettings) -> bool:
    """Whether it lacks what a newer version keeps, or what the topic's configuration asks for since it was built."""
    lacks_texts = settings.texts and isinstance(segment, SealedSegment) and segment.texts() is None
    return segment.outdated or lacks_texts


def _open_entry(
    directory: Path, entry: Entry, settings: IndexSettings, catalog: Catalog
) -> tuple[AnySegment | None, bool]:
    """The segment (None = damaged, set aside) and whether it reaches as far as the manifest says."""
    try:
        if entry.kind == "sealed":
            return SealedSegment.open(directory, segment_name(entry.identity)), True
        segment = _open_journal(directory, entry, settings, catalog.damages.append)
    except DamagedFile as damage:
        catalog.damages.append(str(damage))
        for name in [journal_name(entry.identity)] if entry.kind == "growing" else sealed_file_names(entry.identity):
            set_aside(directory / name)
        return None, False
    return segment, entry.next_offset < 0 or segment.next_offset == entry.next_offset


def _open_journal(
    directory: Path, entry: Entry, settings: IndexSettings, report: Callable[[str], None]
) -> GrowingSegment:
    path = directory / journal_name(entry.identity)
    data = read(path)
    result = replay(path, data, entry.identity, entry.base_offset, settings)
    if result.damage:
        report(f"{path.name}: {result.damage}")
        set_aside(path, copy=True)
    if result.good_bytes < len(data):
        truncate(path, result.good_bytes)
    return result.segment


def _salvage(directory: Path, settings: IndexSettings, catalog: Catalog) -> None:
    """Without a manifest the log is replayed from its start, but intact sealed segments still spare it the embedding."""
    for name in file_names(directory):
        identity = name.partition("-")[2].partition(".")[0]
        if identity.isdigit():
            catalog.next_identity = max(catalog.next_identity, int(identity) + 1)
        if name.endswith(JOURNAL_SUFFIX):
            set_aside(directory / name)
        if not name.endswith(COLUMNS_SUFFIX):
            continue
        try:
            segment = SealedSegment.open(directory, name.removesuffix(COLUMNS_SUFFIX))
        except DamagedFile as damage:
            catalog.damages.append(str(damage))
            continue
        if (segment.header.dimensions, segment.header.metric) == (settings.dimensions, settings.metric):
            catalog.reserve.append(segment)
