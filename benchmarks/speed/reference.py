"""The encoder compared with esm's `StructureTokenEncoder`, at ESM3's size: time, peak memory, tokens.

    make reference && python -m benchmarks reference --json FILE

Both have the same random weights and the same real chains, alternating in one run. Peak memory is measured in a
separate process for each, relative to its memory after loading the weights and computing 16 residues; of the longest
chain (`--longest`) only ours. A chain longer than any of the set consists of several, shifted apart and numbered
consecutively.
"""

import json
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks._common import interleaved, ratio, write
from benchmarks._published import published, published_tokens
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import ESM3, Encoder
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.tokenizer import StructureTokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
_SEED = 0
# Figures of a length, with the digits after the point.
_COLUMNS = {
    "reference_seconds": 2,
    "seconds": 2,
    "ratio": 2,
    "different_tokens": None,
    "memory_mb": None,
    "reference_memory_mb": None,
}


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    lengths: Annotated[str, typer.Option(help="Residues of a chain, comma-separated.")] = "128,256,512,1024,3000",
    repeats: Annotated[int, typer.Option(help="Of each length up to 512; longer ones are computed once.")] = 3,
    threads: Annotated[int, typer.Option(help="Number of threads of both; 0: torch's default.")] = 0,
    memory: Annotated[bool, typer.Option(help="Whether peak memory is taken, too.")] = True,
    longest: Annotated[
        int, typer.Option(help="Residues of one more chain, of which only Foldmint's memory is taken; 0: none.")
    ] = 50_000,
    only: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print a table."""
    if threads:
        torch.set_num_threads(threads)
    sizes = [int(length) for length in lengths.split(",")]
    if only:
        print(json.dumps(peak(only, sizes[0])))
        return
    reference, ours = pair()
    rows, reached = [], {}
    for size in sizes:
        row = compared(reference, ours, size, repeats if size <= 512 else 1)
        if memory:
            row["memory_mb"], row["reference_memory_mb"] = (measured(who, size, threads) for who in ("ours", "theirs"))
        rows.append(row)
        reached[size] = row["ratio"]
        print(json.dumps(row), flush=True)
    if memory and longest:
        rows.append({"residues": longest, "memory_mb": measured("ours", longest, threads)})
        print(json.dumps(rows[-1]), flush=True)
    judged = [found for size, found in reached.items() if 256 <= size <= 1024]
    peaks = [row["memory_mb"] for row in rows if "memory_mb" in row]
    bars = [bar("times the reference's speed, least of 256 to 1,024 residues", "at least 3.4", judged, min, 3.4)]
    if peaks:
        bars.append(bar("peak memory above the weights, MB, most of all lengths", "under 400", peaks, max, -400))
    table = {
        "title": "ESM3's size, random weights, float32",
        "columns": ["residues", "reference, s", "Foldmint, s", "times as fast", "tokens that differ", "peak MB", "its"],
        "rows": [[row["residues"], *(_shown(row, name, digits) for name, digits in _COLUMNS.items())] for row in rows],
    }
    write(file, {"tables": [table], "bars": [one for one in bars if one], "lengths": rows})


def _shown(row: dict[str, Any], name: str, digits: int | None) -> float | str:
    return round(row[name], digits) if name in row else "–"


def bar(measure: str, wanted: str, values: list[float], of: Any, limit: float) -> dict[str, object] | None:  # noqa: ANN401
    """How a bar was met; limit: the least, or less than zero: the most that is allowed."""
    if not values:
        return None
    found = of(values)
    return {
        "measure": measure,
        "bar": wanted,
        "found": found,
        "reached": found >= limit if limit > 0 else found < -limit,
    }


def pair() -> tuple[Any, StructureTokenizer]:
    """The reference and ours, with the same weights, spread out so that many codes are hit."""
    reference = spread_out()
    encoder = Encoder(ESM3)
    state = {name: value for name, value in reference.state_dict().items() if not name.startswith("codebook.")}
    encoder.load_state_dict(state)
    embeddings = reference.codebook.embeddings
    version = CodebookVersion("-", "-", Codebook(embeddings.clone(), torch.ones(ESM3.codes), embeddings.new_zeros(0)))
    return reference, StructureTokenizer(Model("random", ESM3, encoder, "-", version))


def spread_out() -> Any:  # noqa: ANN401 (a class of esm's)
    """The reference with random weights."""
    torch.manual_seed(_SEED)
    reference = published(ESM3)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "scale_per_head" in name:
                parameter.normal_()
        reference.relative_positional_embedding.embedding.weight.normal_()
        reference.pre_vq_proj.weight.mul_(10)
        reference.pre_vq_proj.bias.zero_()
        reference.codebook.embeddings.copy_(torch.randn(ESM3.codes, ESM3.out))
    return reference


def compared(reference: Any, ours: StructureTokenizer, size: int, repeats: int) -> dict[str, Any]:  # noqa: ANN401
    """Seconds of each, their ratio, and how many tokens differ."""
    coordinates, index = chain(size)
    found: dict[str, Any] = {}

    def theirs() -> None:
        found["theirs"] = published_tokens(reference, coordinates, index)

    def mine() -> None:
        found["ours"] = tokens(ours, coordinates, index)

    mine()
    seconds = interleaved({"theirs": theirs, "ours": mine}, repeats)
    return {
        "residues": size,
        "reference_seconds": float(np.median(seconds["theirs"])),
        "seconds": float(np.median(seconds["ours"])),
        "ratio": ratio(seconds["theirs"], seconds["ours"]),
        "different_tokens": int((found["theirs"] != found["ours"]).sum()),
    }


def tokens(ours: StructureTokenizer, coordinates: np.ndarray, index: np.ndarray) -> np.ndarray:
    """As a user asks for them, from coordinates."""
    from foldmint_tokenizer import backbone

    return ours.tokenize(backbone(coordinates, index))[0].tokens


def chain(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (size, 3, 3) float32 and numbers (size,) of a real chain, or of several set apart."""
    records = sorted(read_parquet(ROOT / "tests" / "data" / "chains.parquet"), key=lambda one: len(one.coordinates))
    fitting = next((one for one in records if len(one.coordinates) >= size), None)
    if fitting is not None:
        return fitting.coordinates[:size].astype(np.float32), fitting.residue_index[:size].astype(np.int64)
    parts: list[np.ndarray] = []
    total = 0
    side = 1 + int(np.ceil((size / len(records[0].coordinates)) ** (1 / 3)))
    for place, record in enumerate(cycle(records[::-1])):
        body = record.coordinates - np.nanmean(record.coordinates, axis=(0, 1))
        parts.append(body + np.array(np.unravel_index(place, (side, side, side)))[::-1] * 200.0)
        total += len(body)
        if total >= size:
            break
    return np.concatenate(parts)[:size].astype(np.float32), np.arange(1, size + 1)


def measured(who: str, size: int, threads: int) -> float:
    """Peak memory in MB above the weights, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "reference", "--only", who, "--lengths", str(size)]
    done = subprocess.run([*command, "--threads", str(threads)], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak(who: str, size: int) -> float:
    """Peak memory in MB of one computation, relative to the memory before it."""
    reference, ours = pair()
    if who == "ours":
        del reference

    def compute(count: int) -> None:
        coordinates, index = chain(count)
        if who == "ours":
            tokens(ours, coordinates, index)
        else:
            published_tokens(reference, coordinates, index)

    compute(16)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    time.sleep(0.1)
    before = status("VmRSS")
    compute(size)
    return status("VmHWM") - before


def status(name: str) -> float:
    """A figure of this process' memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith(name))


if __name__ == "__main__":
    typer.run(main)
