"""Sources of code counts: a store, Prometheus, servers, or a set of backbones to encode."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from foldmint_client.admin import CodebookAdmin, CodebookUsage
from foldmint_client.cli.diagnosis import connection_fault
from foldmint_client.connection import ConnectionOptions
from foldmint_client.errors import FoldmintError
from foldmint_maintenance.datasets.loading import Skip, read_set
from foldmint_maintenance.datasets.records import gathered
from foldmint_maintenance.datasets.sampling import grouped
from foldmint_maintenance.errors import InvalidSet, UsageUnknown
from foldmint_maintenance.evaluation.encoding import ReportResidues, encoded
from foldmint_maintenance.usage import prometheus_counts
from foldmint_maintenance.usage.prometheus_api import OPEN, Entry, Prometheus
from foldmint_maintenance.usage.statistics import CodeCounts
from foldmint_tokenizer.store.model_store import Location, Store, load_model


def from_store(location: Location | None = None, version: str | None = None) -> CodeCounts:
    """N of a version of a store's codebook, by default the active one. Without a location, the embedded model is read.

    Raises ModelError if it cannot be read.
    """
    store = Store(location)
    found = store.codebook(version)
    counts = found.codebook.N.double().numpy()
    return CodeCounts(counts, None, found.version, f"moving averages in {store.files}")


def from_file(path: Path, codebook_digest: str | None = None) -> CodeCounts:
    """Counts that `usage --json-file FILE --counts`, or a bulk job, wrote.

    codebook_digest: SHA-256 of the codebook that they must be of, if the file says of which they are. Raises
    UsageUnknown if the file cannot be read, holds something else, or is of another codebook.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        counts = CodeCounts(stored["counts"], stored["residues"], stored["version"], stored["source"])
    except OSError as error:
        raise UsageUnknown(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageUnknown(
            f"{path} holds no counts, as usage --json-file FILE --counts writes them: {error!r}"
        ) from error
    own = stored.get("codebook_sha256")
    if codebook_digest is not None and own not in (None, codebook_digest):
        raise UsageUnknown(
            f"{path} has counts of another codebook: its SHA-256 is {own}, the store's {codebook_digest}"
        )
    return counts


def with_store(counts: CodeCounts, location: Location) -> CodeCounts:
    """The counts with N of their version in a store, by which codes without a hit are judged.

    Raises ModelError if it cannot be read; UsageUnknown if the codebook has another number of codes.
    """
    N = Store(location).codebook(counts.version).codebook.N.double().numpy()
    try:
        return replace(counts, N=N)
    except ValueError as error:
        raise UsageUnknown(f"{counts.source} is of another codebook than {location}: {error}") from error


def from_data(
    path: Path,
    model: Location | None = None,
    version: str | None = None,
    *,
    batch: int = 1024,
    skip: Skip | None = None,
    report: ReportResidues | None = None,
) -> CodeCounts:
    """Hits of a set encoded by a model, by default the embedded one.

    path, skip: as `read_set` takes them. batch: residues encoded at once. report: called with how many were. Raises
    InvalidSet if no residue of the set has a frame; ModelError if the model cannot be read.
    """
    loaded = load_model(model, version)
    embeddings = loaded.codebook.codebook.embeddings
    hits = np.zeros(len(embeddings), np.int64)
    for group in grouped(read_set(path, skip)):
        part = gathered(group)
        for rows in encoded(loaded.encoder, embeddings, part, np.arange(len(part)), batch):
            hits += np.bincount(rows.codes, minlength=len(hits))
            if report is not None:
                report(len(rows.codes))
    if not hits.any():
        raise InvalidSet("the set holds no residue with N, CA and C")
    counts, N = hits.astype(np.float64), loaded.codebook.codebook.N.double().numpy()
    return CodeCounts(counts, int(hits.sum()), loaded.codebook.version, f"residues of {path}", N=N)


def from_prometheus(
    url: str,
    window: float,
    *,
    selector: str = "",
    end: float | None = None,
    version: str | None = None,
    timeout: float = 60.0,
    entry: Entry = OPEN,
) -> CodeCounts:
    """Hits in Prometheus over a window, summed over servers, while the codebook was active.

    url: `http://HOST:PORT`. window: seconds. selector: label matchers, such as `job="foldmint"`. end: seconds since
    1970, now by default. version: by default the one active at the end. timeout: seconds, of a query. entry: its
    credentials. Raises `UsageUnknown` if Prometheus cannot be reached, has no samples, or the servers do not serve one
    codebook; `ValueError` for an invalid address or window.
    """
    return prometheus_counts.counted(Prometheus(url, timeout, entry), window, selector, end, version).counts


def from_servers(
    addresses: Sequence[str], version: str | None = None, **options: Unpack[ConnectionOptions]
) -> CodeCounts:
    """Hits of one version, summed over servers, each since it first activated the version.

    addresses: HOST:PORT of their admin listeners. version: by default the active one. options: of the connections, as
    for `foldmint_client.Client`. Raises `UsageUnknown` if a server does not answer, or they do not serve one codebook;
    `ValueError` if there is no address, or a repeated one.
    """
    if not addresses or len(set(addresses)) < len(addresses):
        raise ValueError(f"servers are addresses, one or more, none twice, not {', '.join(addresses) or 'none'}")
    usages: dict[str, tuple[CodebookUsage, str]] = {}
    for address in addresses:
        try:
            with CodebookAdmin(address, **options) as admin:
                usage = admin.usage(version)
                usages[address] = usage, admin.codebook(usage.version).digest
        except FoldmintError as error:
            fault = connection_fault(error, address, options.get("tls"), "--admin-listen")
            raise UsageUnknown(f"{address}: {fault}") from error
    codebooks = {(usage.version, len(usage.hits)) for usage, _ in usages.values()}
    if len(codebooks) > 1 or len({digest for _, digest in usages.values() if digest}) > 1:
        served = ", ".join(f"{address}: {usage.version} ({digest[:12]})" for address, (usage, digest) in usages.items())
        raise UsageUnknown(f"the servers do not serve one codebook: {served}; a version chooses")
    hits = np.sum([usage.hits for usage, _ in usages.values()], axis=0)
    since = [
        f"{address} since {usage.since:%Y-%m-%dT%H:%M:%SZ}" for address, (usage, _) in usages.items() if usage.since
    ]
    notes = (f"counted by {', '.join(since)}",) if since else ()
    ((found, _),) = codebooks
    return CodeCounts(hits.astype(np.float64), int(hits.sum()), found, f"hits on {', '.join(addresses)}", notes)
