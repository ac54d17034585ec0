"""What very many structures cost: core hours, GPU hours, storage and network, from measured figures.

    python -m benchmarks scale-costs --json docs/scale/scale-costs.json

Times a residue come from docs/performance/served.json and reading.json. Sizes are measured here: of a row group of a
job's part, with tokens as frequent as in real chains, and of entries of the PDB as gzip'd mmCIF. Rates of GPUs are
assumed.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from pyarrow import parquet

from benchmarks._common import ROOT, write
from foldmint_bulk.job import identify
from foldmint_bulk.output.parts import part_writer
from foldmint_client.models.responses import ChainTokens, Tokens
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer.store.model_store import load_model
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.reader import read_structure
from foldmint_tokenizer.tokenizer import StructureTokenizer

PERFORMANCE = ROOT / "docs" / "performance"
_DATA = ROOT / "tests" / "data"
_MODELS = ("1gbt.cif.gz", "4cup.cif.gz")  # of one model each, as predictions are
_CHAINS, _RESIDUES = 1024, 300  # of a row group, and of each chain
_SEED = 0
_BITS = 12  # of a code, of 4096
_UNIT = 10_000  # structures, as foldmint-bulk has it by default
_HOUR, _TERA = 3600, 1e12
_MICRO = 1e-6


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    structures: Annotated[float, typer.Option(help="Number of structures.")] = 1e9,
    residues: Annotated[int, typer.Option(help="Residues of each.")] = 300,
    rates: Annotated[str, typer.Option(help="Assumed residues/s of a GPU, comma-separated.")] = "100000,300000,1000000",
) -> None:
    """Print tables."""
    found = times(PERFORMANCE) | sizes()
    assumed = {"structures": int(structures), "residues": residues, "rates": [int(rate) for rate in rates.split(",")]}
    tables = costs(found, assumed)
    for table in tables:
        print(f"\n{table['title']}\n{', '.join(table['columns'])}")
        for row in table["rows"]:
            print(", ".join(f"{cell:,.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    write(file, {"tables": tables, "bars": [], "measured": found, "assumed": assumed})


def times(folder: Path) -> dict[str, float]:
    """CPU microseconds a residue, as other benchmarks measured them on one core."""
    served = json.loads((folder / "served.json").read_text())
    reading = json.loads((folder / "reading.json").read_text())
    (table,) = [one for one in served["tables"] if "CPU there, µs a residue" in one["columns"]]
    column = table["columns"].index("CPU there, µs a residue")
    (encode,) = [row[column] for row in table["rows"] if row[0] == "in process, all in one call"]
    read = {form: one["read_structure, µs a residue"] for form, one in reading["formats"].items()}
    return {"encode_us": encode, "read_mmcif_us": read["mmCIF"], "read_pdb_us": read["PDB"]}


def sizes() -> dict[str, float]:
    """Bytes a residue of input and output, and the entropy of tokens in bits.

    The output is a whole row group, whose tokens and letters are drawn by their frequencies in real chains: in a small
    file the dictionary of codes weighs more than it does in a job's parts.
    """
    tokenizer, found = StructureTokenizer(load_model()), Counter[int]()
    letters = Counter[str]()
    for chain in read_parquet(_DATA / "chains.parquet"):
        backbone = Backbone("A", chain.sequence, np.asarray(chain.residue_index), np.asarray(chain.coordinates))
        (tokenized,) = tokenizer.tokenize(backbone)
        found.update(tokenized.tokens[tokenized.has_frame].tolist())
        letters.update(chain.sequence)
    share = np.array(list(found.values())) / found.total()
    columns, residues = _written(_drawn(found, letters))
    contents = [(_DATA / name).read_bytes() for name in _MODELS]
    read = sum(len(chain) for content in contents for chain in read_structure(content).chains)
    return {
        "tokenized_residues": found.total(),
        "entropy_bits": float(-(share * np.log2(share)).sum()),
        "written_residues": residues,
        "output_bytes": sum(columns.values()) / residues,
        "token_bytes": columns["tokens"] / residues,
        "input_bytes": sum(map(len, contents)) / read,
    }


def _drawn(codes: Mapping[int, int], letters: Mapping[str, int]) -> Iterator[ChainTokens]:
    """Chains of a row group, of codes and letters with these frequencies."""
    random = np.random.default_rng(_SEED)
    drawn = [_draw(random, counts) for counts in (codes, letters)]
    for tokens, sequence in zip(*drawn, strict=True):
        yield ChainTokens(
            chain="A",
            sequence="".join(sequence),
            residue_index=np.arange(1, _RESIDUES + 1, dtype=np.int32),
            insertion_codes="",
            tokens=tokens.astype(np.uint16),
            has_frame=np.ones(_RESIDUES, np.bool_),
            distances=None,
        )


def _draw(random: np.random.Generator, counts: Mapping[Any, int]) -> NDArray[Any]:
    weights = np.array(list(counts.values()), float)
    return random.choice(np.array(list(counts)), (_CHAINS, _RESIDUES), p=weights / weights.sum())


def _written(chains: Iterable[ChainTokens]) -> tuple[dict[str, int], int]:
    """Compressed bytes of each column of a part with these chains, and its residues."""
    identity, _ = identify(None, None)
    stream, residues = io.BytesIO(), 0
    writer = part_writer(stream, identity, "0000/000")
    for number, chain in enumerate(chains):
        # As AlphaFold DB names its files.
        source = f"UP000005640_9606_HUMAN_v4.tar!AF-{number:06d}-F1-model_v4.cif.gz"
        writer.write(source, Tokens(identity.name, identity.codebook_version, (chain,)))
        residues += len(chain.tokens)
    writer.close()
    about = parquet.ParquetFile(io.BytesIO(stream.getvalue())).metadata
    columns = Counter[str]()
    for group in range(about.num_row_groups):
        for place in range(about.num_columns):
            column = about.row_group(group).column(place)
            columns[column.path_in_schema.partition(".")[0]] += column.total_compressed_size
    return columns, residues


def costs(found: Mapping[str, float], assumed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables, from what was measured (`times`, `sizes`) and what is assumed."""
    total = assumed["structures"] * assumed["residues"]
    hours = total * _MICRO / _HOUR
    measured = _table(
        "Measured, a residue",
        ["what", "figure", "unit"],
        [
            ["tokenizing, one core", found["encode_us"], "µs of CPU"],
            ["reading, mmCIF with gzip", found["read_mmcif_us"], "µs of CPU"],
            ["reading, PDB with gzip", found["read_pdb_us"], "µs of CPU"],
            ["input, mmCIF with gzip", found["input_bytes"], "bytes"],
            ["output, Parquet", found["output_bytes"], "bytes"],
            ["of it, tokens", found["token_bytes"], "bytes"],
            ["tokens, packed to 12 bits", _BITS / 8, "bytes"],
            ["entropy of tokens", found["entropy_bits"], "bits"],
        ],
    )
    whole = _table(
        f"{assumed['structures']:,} structures of {assumed['residues']} residues",
        ["what", "figure", "unit"],
        [
            ["tokenizing on CPUs", hours * found["encode_us"], "core hours"],
            ["reading, mmCIF with gzip", hours * found["read_mmcif_us"], "core hours"],
            ["reading, PDB with gzip", hours * found["read_pdb_us"], "core hours"],
            ["input read, mmCIF with gzip", total * found["input_bytes"] / _TERA, "TB"],
            ["output written and stored, Parquet", total * found["output_bytes"] / _TERA, "TB"],
            ["of it, tokens", total * found["token_bytes"] / _TERA, "TB"],
            ["tokens, packed to 12 bits", total * _BITS / 8 / _TERA, "TB"],
            ["tokens, at their entropy", total * found["entropy_bits"] / 8 / _TERA, "TB"],
            [f"units of {_UNIT:,} structures", math.ceil(assumed["structures"] / _UNIT), "parts and records"],
        ],
    )
    gpus = _table(
        "With GPUs, of which each is assumed to do",
        ["residues/s", "GPU hours", "cores reading mmCIF, a GPU", "cores reading PDB, a GPU", "input a GPU, Gbit/s"],
        [
            [
                rate,
                total / rate / _HOUR,
                rate * found["read_mmcif_us"] * _MICRO,
                rate * found["read_pdb_us"] * _MICRO,
                rate * found["input_bytes"] * 8 / 1e9,
            ]
            for rate in assumed["rates"]
        ],
    )
    return [measured, whole, gpus]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


if __name__ == "__main__":
    typer.run(main)
