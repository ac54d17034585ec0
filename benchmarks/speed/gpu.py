"""A GPU: whether its tokens are right, and how fast it is.

    python -m benchmarks gpu --json docs/performance/gpu.json

Within `--minutes`, in this order, and what no time is left for is named:

- tokens of real chains in float32, TF32 and BF16 against float32 on the CPU, of the default model and at ESM3's size;
- the encoder's rate at both sizes and in each precision, plain and compiled (CUDA graphs over fixed numbers of rows),
  and the share of the rate of its matrix products alone, in the same precision;
- the published encoder at ESM3's size, if `make reference` installed it;
- files to tokens: reading, geometry, computation; and how long of it the device waited.

`--device cpu` runs the same with little, to test this command.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks import _published
from benchmarks._common import ROOT, interleaved, write
from benchmarks.speed.limit import product_passes, products, real
from benchmarks.speed.reference import chain, spread_out
from foldmint_tokenizer import ModelError, StructureTokenizer, read_backbones
from foldmint_tokenizer.encoder import ESM3, Encoder
from foldmint_tokenizer.engine import Engine, Precision, Quantized
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.neighborhoods import Neighborhoods
from foldmint_tokenizer.store.model_store import load_model

_FLOAT32_SAME = 0.999
_DATA = ROOT / "tests" / "data"
_FILES = ("1a8o.cif", "4cup.cif.gz", "1gbt.cif.gz", "2beg.cif.gz")
_PUBLISHED_RESIDUES = 512


class Sized(NamedTuple):
    """An encoder with its codes. rows: of a pass."""

    name: str
    encoder: Encoder
    embeddings: Tensor
    rows: int


class Clock:
    """The time that is left. skipped: what there was none for."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self.skipped: list[str] = []

    def allows(self, what: str, seconds: float) -> bool:
        """Whether something that takes about so long may begin; else it is noted."""
        if time.monotonic() + seconds < self._end:
            return True
        self.skipped.append(what)
        return False


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1, …, or cpu to test this command.")] = "cuda",
    minutes: Annotated[float, typer.Option(help="Time limit.")] = 9.0,
    rows: Annotated[int, typer.Option(help="Residues of a pass of the default model.")] = 65_536,
    wide_rows: Annotated[int, typer.Option(help="Residues of a pass at ESM3's size.")] = 8_192,
    compared: Annotated[int, typer.Option(help="Residues whose tokens are compared with the CPU's.")] = 4_096,
    repeats: Annotated[int, typer.Option(help="Of each; the medians count.")] = 5,
    compiled: Annotated[bool, typer.Option(help="Whether compiled encoders are timed, too.")] = True,
) -> None:
    """Print tables. Fails if the tokens in float32 are not those of the CPU."""
    if device != "cpu" and not torch.cuda.is_available():
        sys.exit("there is no GPU; --device cpu tests this command")
    clock, model = Clock(minutes), load_model()
    torch.manual_seed(0)
    wide = Encoder(ESM3).eval()
    with torch.no_grad():
        wide.pre_vq_proj.weight.mul_(10)  # spread out, so that many codes are hit
    sizes = [
        Sized("the default model", model.encoder, model.codebook.codebook.embeddings, rows),
        Sized("ESM3's size", wide, torch.randn(ESM3.codes, ESM3.out), wide_rows),
    ]
    same = [row for size in sizes for row in tokens(size, device, compared, clock)]
    tables = []
    for title, columns, found in (
        (
            "Tokens, against float32 on the CPU",
            ["model", "precision", "residues", "same tokens, %", "mean distance, ratio"],
            same,
        ),
        (
            "Encoding and quantization",
            ["model", "precision", "residues/s", "of products alone", "share", "TFLOP/s of products"],
            [row for size in sizes for row in rates(size, device, repeats, compiled, clock)],
        ),
        (
            f"ESM3's size, against the published encoder, {_PUBLISHED_RESIDUES} residues at a time",
            ["encoder", "residues/s"],
            published_rates(sizes[1], device, repeats, clock),
        ),
        (
            "Files to tokens, the default model",
            ["step", "residues/s", "share of the time"],
            from_files(model, device, repeats, clock),
        ),
    ):
        print(title, *found, sep="\n  ", flush=True)
        tables.append({"title": title, "columns": columns, "rows": found})
    bars = [
        {
            "measure": f"share of equal tokens in float32, {row[0]}",
            "bar": f"at least {_FLOAT32_SAME}",
            "found": row[3] / 100,
            "reached": row[3] / 100 >= _FLOAT32_SAME,
        }
        for row in same
        if row[1] == Precision.FLOAT32.value
    ]
    name = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
    write(file, {"tables": tables, "bars": bars, "device": name, "cuda": torch.version.cuda, "skipped": clock.skipped})
    if clock.skipped:
        print("no time was left for:", *clock.skipped, sep="\n  ")
    if not all(bar["reached"] for bar in bars):
        sys.exit("the tokens in float32 are not those of the CPU")


def tokens(size: Sized, device: str, count: int, clock: Clock) -> list[list[Any]]:
    """For each precision, how many tokens are those of float32 on the CPU."""
    given = real(count)
    found: list[list[Any]] = []
    expected = _encoded(Engine(_copied(size.encoder), "cpu"), given, size.embeddings)
    for precision in Precision:
        if not clock.allows(f"tokens, {size.name}, {precision}", 10):
            continue
        try:
            engine = Engine(_copied(size.encoder), device, precision=precision)
        except ModelError as error:
            print(error)
            continue
        result = _encoded(engine, given, size.embeddings.to(device))
        same = 100 * float(np.mean(result.codes == expected.codes))
        ratio = float(result.distances.sum() / expected.distances.sum())
        found.append([size.name, precision.value, count, same, ratio])
    return found


def rates(size: Sized, device: str, repeats: int, compiled: bool, clock: Clock) -> list[list[Any]]:
    """Residues/s in each precision, plain and compiled, and those of the products alone, all in one run."""
    given, codes = real(size.rows), size.embeddings.to(device)
    tasks: dict[str, Callable[[], object]] = {}
    for precision in Precision:
        for how in ("", ", compiled")[: 1 + compiled]:
            name = precision.value + how
            if not clock.allows(f"rate, {size.name}, {name}", 60 if how else 15):
                continue
            try:
                engine = Engine(_copied(size.encoder), device, precision=precision, compiled=bool(how))
            except ModelError as error:
                print(error)
                continue
            tasks[name] = partial(_encoded, engine, given, codes)
            if not how:
                tasks[f"{name}, products"] = _products(engine, size)
            tasks[name]()  # libraries load, and compiled encoders are compiled
    seconds = {name: median(times) for name, times in interleaved(tasks, repeats).items()}
    operations = sum(one.operations for one in products(size.encoder.config)) * size.rows
    found = []
    for name in tasks:
        if not name.endswith("products"):
            alone = seconds[f"{name.partition(',')[0]}, products"]
            rate, possible = size.rows / seconds[name], size.rows / alone
            found.append([size.name, name, rate, possible, rate / possible, operations / alone / 1e12])
    return found


def _products(engine: Engine, size: Sized) -> Callable[[], object]:
    """The products of a pass and nothing else, in the engine's precision."""
    alone = product_passes(products(size.encoder.config), engine, size.rows)

    def run() -> None:
        with engine.precision_context():
            alone()

    return run


def published_rates(size: Sized, device: str, repeats: int, clock: Clock) -> list[list[Any]]:
    """Of the published encoder and ours, chains of a fixed length."""
    if not _published.installed():
        clock.skipped.append("the published encoder: make reference")
        return []
    if not clock.allows("the published encoder", 60):
        return []
    reference = spread_out().to(device)
    coordinates, index = chain(_PUBLISHED_RESIDUES)
    given = torch.from_numpy(coordinates)[None].to(device), torch.from_numpy(index)[None].to(device)
    engine, codes = Engine(_copied(size.encoder), device), size.embeddings.to(device)
    rows = real(_PUBLISHED_RESIDUES)

    def theirs() -> None:
        with torch.no_grad():
            reference.encode(given[0], residue_index=given[1])[1].cpu()

    tasks: dict[str, Callable[[], object]] = {"published": theirs, "Foldmint": partial(_encoded, engine, rows, codes)}
    for task in tasks.values():
        task()
    seconds = interleaved(tasks, repeats)
    return [[name, _PUBLISHED_RESIDUES / median(times)] for name, times in seconds.items()]


def from_files(model: Model, device: str, repeats: int, clock: Clock) -> list[list[Any]]:
    """Reading, computation, and both, of real files; and what share of the time each is."""
    if not clock.allows("files to tokens", 30):
        return []
    tokenizer = StructureTokenizer(model, device)
    contents = [(_DATA / name).read_bytes() for name in _FILES]
    chains = [one for content in contents for one in read_backbones(content)]
    residues = sum(map(len, chains))
    tasks: dict[str, Callable[[], object]] = {
        "files to tokens, one file at a time": lambda: [tokenizer.tokenize(content) for content in contents],
        "reading": lambda: [read_backbones(content) for content in contents],
        "from coordinates, all chains in one call": lambda: tokenizer.tokenize(chains),
    }
    for task in tasks.values():
        task()
    seconds = {name: median(times) for name, times in interleaved(tasks, repeats).items()}
    whole = seconds["files to tokens, one file at a time"]
    return [[name, residues / taken, taken / whole] for name, taken in seconds.items()]


def _encoded(engine: Engine, rows: Neighborhoods, codes: Tensor) -> Quantized:
    return engine.quantize(engine.vectors(rows), codes)


def _copied(encoder: Encoder) -> Encoder:
    """An engine moves its encoder to its device."""
    made = Encoder(encoder.config)
    made.load_state_dict({name: value.cpu() for name, value in encoder.state_dict().items()})
    return made


if __name__ == "__main__":
    typer.run(main)
