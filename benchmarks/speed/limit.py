"""The encoder compared with the time of its matrix products alone, and the cost of recording hits and usage.

    python -m benchmarks limit --json FILE

The products of the exact method, with the same shapes and number of threads, are timed alone, alternating with the
encoder in one run. The result is residues a second, relative to the rate if only products took time.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from prometheus_client import CollectorRegistry
from torch import Tensor

from benchmarks._common import interleaved, write
from foldmint_maintenance.datasets.records import read_parquet
from foldmint_server.metrics.code_usage import CodeUsage
from foldmint_server.metrics.registry import create_metrics
from foldmint_server.security.bearer_tokens import AccessToken, AccessTokens
from foldmint_server.security.token_use import TokenUse
from foldmint_tokenizer import StructureTokenizer, backbone
from foldmint_tokenizer.encoder import ESM3, Encoder
from foldmint_tokenizer.engine import Engine, Precision
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.neighborhoods import NEIGHBORS, Neighborhoods, build_geometry, concatenate
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import load_model

CHAINS = Path(__file__).resolve().parent.parent.parent / "tests" / "data" / "chains.parquet"
_RECORDED = 16_384
_CHAIN = 128  # residues of a structure whose usage is recorded; shorter than most, so that its share is larger
# Of a product on a CPU: with more it is slower, since its result leaves the cache.
_COLUMNS = 512
# From coordinates to tokens, in process.
_WAYS = ("together", "one_by_one")


class Product(NamedTuple):
    """A matrix product that a residue needs: of `vectors` vectors from `inner` to `outer` dimensions."""

    vectors: int
    inner: int
    outer: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.vectors * self.inner * self.outer


def products(config: ModelConfig) -> list[Product]:
    """What the exact method needs for one residue. The first block's projections are a table, and no product."""
    width, heads, hidden = config.width, config.heads, config.hidden
    needed = []
    for depth in range(config.layers):
        rows = 1 if depth == config.layers - 1 else NEIGHBORS
        if depth:
            needed += [Product(NEIGHBORS, width, 9 * heads), Product(rows, width, 6 * heads)]
        needed += [
            Product(rows, 3 * heads, width),
            Product(rows, width, 2 * hidden),
            Product(rows, hidden, width),
        ]
    return [*needed, Product(1, width, config.out), Product(1, config.out, config.codes)]


def main(
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cuda" if torch.cuda.is_available() else "cpu",
    repeats: Annotated[int, typer.Option(help="Of each; the medians count.")] = 5,
    wide_rows: Annotated[int, typer.Option(help="Residues of a pass at ESM3's size.")] = 384,
    rows: Annotated[int, typer.Option(help="Residues of a pass of the default model.")] = 8192,
) -> None:
    """Print a table."""
    torch.manual_seed(0)
    model = load_model()
    found = {
        "ESM3's size": measured(Encoder(ESM3), torch.randn(ESM3.codes, ESM3.out), device, wide_rows, repeats),
        "the default model": measured(
            model.encoder, model.codebook.codebook.embeddings, device, rows, repeats, StructureTokenizer(model, device)
        ),
    }
    for name, row in found.items():
        print(name, row, flush=True)
    recording = recorded(model, found["the default model"]["residues_per_second"])
    print("recording", recording)
    whole = found["the default model"]
    table = {
        "title": "Encoding and quantization, float32",
        "columns": [
            "model",
            "GFLOP a residue",
            "GFLOP/s of products alone",
            "residues/s possible",
            "reached",
            "share",
            "from coordinates, all chains in one call",
            "one chain after another",
        ],
        "rows": [
            [
                name,
                round(row["gflop_per_residue"], 4),
                round(row["gflops"]),
                round(row["possible"]),
                round(row["residues_per_second"]),
                f"{row['share']:.0%}",
                *(_of_possible(row, way) for way in _WAYS),
            ]
            for name, row in found.items()
        ],
    }
    bars = [
        _least("share of the products' limit, ESM3's size", 0.82, found["ESM3's size"]["share"]),
        _least("the default model from coordinates, one chain after another, residues/s", 4000, whole["one_by_one"]),
        _least("its share of the products' limit, all chains in one call", 0.75, whole["together"] / whole["possible"]),
        _least("one chain after another, against all in one call", 0.9, whole["one_by_one"] / whole["together"]),
        {
            "measure": "recording of hits, share of compute",
            "bar": "under 0.01",
            "found": recording["share"],
            "reached": recording["share"] < 0.01,
        },
        {
            "measure": "recording of usage by caller, chains, messages and batches, share of compute",
            "bar": "under 0.01",
            "found": recording["usage_share"],
            "reached": recording["usage_share"] < 0.01,
        },
    ]
    write(file, {"tables": [table], "bars": bars, "models": found, "recording": recording, "device": device})


def _of_possible(row: dict[str, float], way: str) -> str:
    return f"{row[way] / row['possible']:.0%}" if way in row else "–"


def _least(measure: str, limit: float, found: float) -> dict[str, object]:
    return {"measure": measure, "bar": f"at least {limit:g}", "found": round(found, 3), "reached": found >= limit}


def measured(
    encoder: Encoder,
    embeddings: Tensor,
    device: str,
    count: int,
    repeats: int,
    tokenizer: StructureTokenizer | None = None,
) -> dict[str, float]:
    """Rates of an encoder with its codes, of its products, and if a tokenizer is given of all from coordinates.

    The products have full blocks for all threads, as chains have that are given in one call; one chain after another
    has neither.
    """
    engine = Engine(encoder, device)
    given, codes = real(count), embeddings.to(device)
    needed = products(encoder.config)
    alone = product_passes(needed, engine, count)

    def encode(by: Engine) -> None:
        by.quantize(by.vectors(given), codes)

    tasks: dict[str, Callable[[], object]] = {"products": alone, "encode": partial(encode, engine)}
    residues = count
    if tokenizer is not None:
        held = [backbone(one.coordinates, one.residue_index) for one in read_parquet(CHAINS)]
        residues = sum(len(one.residue_index) for one in held)
        tasks["together"] = lambda: tokenizer.tokenize(held)
        tasks["one_by_one"] = lambda: [tokenizer.tokenize(one) for one in held]
    others = [] if device == "cpu" else [one for one in Precision if one is not Precision.FLOAT32]
    for precision in others:
        try:
            other = Engine(encoder, device, precision=precision)
        except ModelError:
            continue
        tasks[precision.value] = partial(encode, other)
    for task in tasks.values():
        task()  # libraries load and memory is taken before anything is timed
    seconds = {name: median(times) for name, times in interleaved(tasks, repeats).items()}
    operations = sum(one.operations for one in needed)
    figures = {
        "gflop_per_residue": operations / 1e9,
        "gflops": operations * count / seconds["products"] / 1e9,
        "possible": count / seconds["products"],
        "residues_per_second": count / seconds["encode"],
        "share": seconds["products"] / seconds["encode"],
    }
    if tokenizer is not None:
        figures |= {way: residues / seconds[way] for way in _WAYS}
    for precision in others:
        if precision.value in seconds:
            figures[f"{precision.value}_residues_per_second"] = count / seconds[precision.value]
    return figures


def product_passes(needed: list[Product], engine: Engine, count: int) -> Callable[[], object]:
    """The products of `count` residues and nothing else: as large as the engine makes them, on as many threads."""
    if engine.device.type != "cpu":
        size, threads, most = engine.step_rows, 1, NEIGHBORS * engine.step_rows
    else:
        most = _COLUMNS
        threads = torch.get_num_threads()
        size = engine.step_rows // threads
    own = threading.local()

    def one(rows: int) -> None:
        if not hasattr(own, "operands"):
            own.operands = [_operands(product, size, most, engine.device) for product in needed]
        for (weight, vectors, out), product in zip(own.operands, needed, strict=True):
            total = product.vectors * rows
            for start in range(0, total, most):
                columns = min(most, total - start)
                torch.mm(weight, vectors[:, start : start + columns], out=out[:, :columns])
        if engine.device.type == "cuda":
            torch.cuda.synchronize()

    blocks = [size] * (count // size) + ([count % size] if count % size else [])
    if threads == 1:
        return lambda: list(map(one, blocks))
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    started = threading.Barrier(threads)
    list(pool.map(lambda _: started.wait(), range(threads)))
    torch.set_num_threads(before)
    return lambda: list(pool.map(one, blocks))


def _operands(product: Product, rows: int, most: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(product.outer, product.inner, device=device),
        torch.randn(product.inner, product.vectors * rows, device=device),
        torch.empty(product.outer, min(most, product.vectors * rows), device=device),
    )


def real(count: int) -> Neighborhoods:
    """Rows of real chains, taken again if there are too few."""
    parts = [build_geometry(one.coordinates, one.residue_index).rows(slice(None)) for one in read_parquet(CHAINS)]
    rows = concatenate(parts)
    return concatenate([rows] * -(-count // len(rows.offset))).part(0, count)


def recorded(model: Model, residues_per_second: float) -> dict[str, float]:
    """What the server's recording of hits, and of usage, costs beside the computation of as many residues."""
    usage = CodeUsage(model.config.codes, 3600.0, lambda: 0.0)
    random = np.random.default_rng(0)
    codes = random.integers(0, model.config.codes, _RECORDED)
    distances = random.random(_RECORDED, np.float32)
    structures = _RECORDED // _CHAIN
    metrics = create_metrics(CollectorRegistry())
    token = AccessToken("caller", bytes(32), frozenset({"tokenize"}))
    metrics.callers.know([token.name])
    uses = TokenUse(Path("unused"), lambda: AccessTokens((token,)), lambda *_: None)

    def record_usage() -> None:
        """What the server does for one structure of one chain, in a batch of its own."""
        for _ in range(structures):
            uses.note(token)
            metrics.callers.add_residues(token.name, _CHAIN)
            metrics.callers.answered(token.name, 0.1)
            metrics.chain_residues.observe(_CHAIN)
            metrics.received_bytes.labels("Tokenize").inc(_CHAIN * 36)
            metrics.sent_bytes.labels("Tokenize").inc(_CHAIN * 8)
            metrics.batch_residues.labels("cpu").observe(_CHAIN)
            metrics.batch_seconds.labels("cpu").observe(0.1)

    tasks = {"hits": lambda: usage.record(model.codebook.version, codes, distances), "usage": record_usage}
    seconds = {name: median(taken) for name, taken in interleaved(tasks, 100).items()}
    compute = _RECORDED / residues_per_second
    return {
        "residues": _RECORDED,
        "ms": seconds["hits"] * 1e3,
        "share": seconds["hits"] / compute,
        "usage_us_a_structure": seconds["usage"] / structures * 1e6,
        "usage_share": seconds["usage"] / compute,
    }


if __name__ == "__main__":
    typer.run(main)
