"""Where counts of the codes' use come from: a store, Prometheus, servers, or a set of backbones that is encoded."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from foldmint_maintenance.corpus import Record, gathered
from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.evaluation import Watch, encoded
from foldmint_maintenance.sources import Skip, read_set
from foldmint_maintenance.usage import CodeCounts
from foldmint_tokenizer.store import Location, Store, load_model

# Residues prepared together, as for an evaluation.
_PART = 16_384


def from_store(location: Location | None = None, version: str | None = None) -> CodeCounts:
    """N of a version of a store's codebook, the active one unless told; of the embedded default if no place is given.

    Raises ModelError if it cannot be read.
    """
    store = Store(location)
    found = store.codebook(version)
    counts = found.codebook.N.double().numpy()
    return CodeCounts(counts, None, found.version, f"moving averages in {store.files}")


def from_data(
    path: Path,
    model: Location | None = None,
    version: str | None = None,
    *,
    batch: int = 1024,
    skip: Skip | None = None,
    watch: Watch | None = None,
) -> CodeCounts:
    """Hits of a set that is encoded by a model, the embedded default unless told.

    path, skip: as `read_set` takes them. batch: residues encoded at once. watch: told how many have been. Raises
    InvalidSet if no residue of the set has a frame; ModelError if the model cannot be read.
    """
    loaded = load_model(model, version)
    embeddings = loaded.codebook.codebook.embeddings
    hits = np.zeros(len(embeddings), np.int64)
    for group in _groups(read_set(path, skip)):
        part = gathered(group)
        for rows in encoded(loaded.encoder, embeddings, part, np.arange(len(part)), batch):
            hits += np.bincount(rows.codes, minlength=len(hits))
            if watch is not None:
                watch(len(rows.codes))
    if not hits.any():
        raise InvalidSet("the set holds no residue with N, CA and C")
    return CodeCounts(hits.astype(np.float64), int(hits.sum()), loaded.codebook.version, f"residues of {path}")


def from_prometheus(
    url: str, window: float, *, selector: str = "", end: float | None = None, timeout: float = 60.0
) -> CodeCounts:
    """Hits that Prometheus has seen over a window, of all replicas together, since the codebook became active.

    window: seconds. selector: label matchers, such as `job="foldmint"`. end: seconds since 1970, now unless told.
    timeout: seconds, of a query. Raises UsageUnknown.
    """
    raise NotImplementedError


def from_servers(addresses: Sequence[str], version: str | None = None) -> CodeCounts:
    """Hits of one version on servers, by their admin listeners, of all together; raises UsageUnknown."""
    raise NotImplementedError


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    residues = 0
    for record in records:
        group.append(record)
        residues += len(record.sequence)
        if residues >= _PART:
            yield group
            group, residues = [], 0
    if group:
        yield group
