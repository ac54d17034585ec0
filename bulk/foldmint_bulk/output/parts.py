"""Parts: the Parquet file with a unit's tokens, in the columns of `foldmint tokenize -o x.parquet`."""

from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING

import numpy as np

from foldmint_bulk.parsing.results import Failure
from foldmint_client.io.token_writers import ParquetWriter
from foldmint_client.models import left_out as client_left_out
from foldmint_client.models.responses import ChainTokens, Tokens
from foldmint_tokenizer.structure.left_out import LeftOut

if TYPE_CHECKING:
    import pyarrow as pa

    from foldmint_bulk.job import ModelIdentity
    from foldmint_tokenizer.tokens import TokenizedChain, TokenizedStructure

FOLDER = "parts"
FAILURES = "failures"


def part_name(unit: str, attempt: str) -> str:
    """The name of an attempt's part."""
    return f"{FOLDER}/{unit}.{attempt}.parquet"


def failures_name(unit: str, attempt: str) -> str:
    """The name of an attempt's failures."""
    return f"{FAILURES}/{unit}.{attempt}.parquet"


def part_writer(stream: IO[bytes], model: "ModelIdentity", unit: str) -> ParquetWriter:
    """A writer of a part, whose footer has the digests of encoder and codebook, and the unit."""
    # Those of the rows; a part without rows has them too.
    digests = {"encoder_digest": model.encoder_digest, "codebook_digest": model.codebook_digest}
    footer = {"model": model.name, "codebook_version": model.codebook_version, **digests, "unit": unit}
    return ParquetWriter(stream, metadata=footer)


def to_tokens(structure: "TokenizedStructure", model: "ModelIdentity") -> Tokens:
    """A structure as the client's writers take it, and as a server would have answered."""
    return Tokens(
        model.name,
        model.codebook_version,
        tuple(_to_chain(chain) for chain in structure),
        tuple(map(_to_left_out, structure.left_out)),
        structure.warnings,
        model.codebook_digest,
        model.encoder_digest,
    )


def _to_chain(chain: "TokenizedChain") -> ChainTokens:
    motions = chain.segment_starts is not None
    return ChainTokens(
        chain=chain.chain,
        sequence=chain.sequence,
        residue_index=chain.residue_index.astype(np.int32),
        insertion_codes=chain.insertion_codes,
        tokens=chain.tokens.astype(np.uint16),
        has_frame=chain.has_frame,
        distances=chain.distances,
        assignment=chain.assignment.value if motions else None,
        segment_starts=None if chain.segment_starts is None else chain.segment_starts.astype(np.int32),
        first_frames=chain.first_frames,
        composed_rmsd=chain.composed_rmsd,
    )


def _to_left_out(one: LeftOut) -> client_left_out.LeftOut:
    kind = client_left_out.LeftOutKind(one.kind.value)
    return client_left_out.LeftOut(kind, one.chain, one.residues, one.names, one.of_protein)


def write_failures(stream: IO[bytes], failures: Iterable[Failure], unit: str) -> None:
    """Write a table of failures: unit, source, kind and reason."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"unit": unit, "source": one.source, "kind": one.kind, "reason": one.reason} for one in failures]
    parquet.write_table(pa.Table.from_pylist(rows, failure_schema()), stream, compression="zstd")


def failure_schema() -> "pa.Schema":
    """The columns of tables of failures."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("unit", "source", "kind", "reason")])


def counted(failures: Iterable[Failure]) -> Mapping[str, int]:
    """Number of failures by kind."""
    counts: dict[str, int] = {}
    for one in failures:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    return dict(sorted(counts.items()))
