"""The computation: rows in, codes and distances out, on one device."""

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.cpu_encoder import FastEncoder, Workspace
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import NEIGHBORS, OFFSET_LIMIT, Geometry, Neighborhoods, concatenate

# Elements of the largest intermediate of a step of the plain encoder, (rows, 16, 16, heads) or (rows, 16, 2 * hidden):
# enough to keep a device busy, little enough that a step is short and its memory small. 64 MiB of float32 on a CPU, 1
# GiB elsewhere.
_STEP_ELEMENTS = {"cpu": 2**24}
_STEP_ELEMENTS_ELSEWHERE = 2**28
# Rows below which a thread more would cost more than it saves.
_FEWEST_ROWS = 32
# Held while what torch keeps for threads to come is changed.
_SETTING = threading.Lock()

T = TypeVar("T")


class Quantized(NamedTuple):
    """codes: (rows,) int64. distances: (rows,) float32, from each vector to its code."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]


class Precision(StrEnum):
    """Of the encoder's products; quantization is float32 always. Both others change a few tokens.

    TF32: products of a CUDA device with ten bits of mantissa, from float32 and into it. BF16: weights and activations
    of products in bfloat16, all geometry in float32.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    BF16 = "bf16"


class Engine:
    """An encoder on a device, its weights as they are now. Not safe for use by several threads at a time.

    threads: of a CPU, that compute side by side; by default as many as torch would use. compiled: let torch.compile
    fuse the encoder, for a few numbers of rows; it takes a minute at the start, and a compiler. step_rows: how many
    rows are computed at once; few_rows: how many are too few to be shared out among devices. Raises ModelError for a
    precision that the device does not have.

    In float32 a CPU runs `FastEncoder`, which is neither compiled nor needs to be; all else runs `Encoder`.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device | str = "cpu",
        *,
        threads: int | None = None,
        precision: Precision = Precision.FLOAT32,
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.encoder = encoder.to(self.device).eval()
        self.precision = precision
        self._plain: Callable[..., Tensor] = self.encoder
        if precision is Precision.TF32 and self.device.type != "cuda":
            raise ModelError(f"precision tf32 needs a CUDA device, not {self.device}")
        self._threads: _Threads | None = None
        if self.device.type == "cpu" and precision is Precision.FLOAT32:
            self._threads = _Threads(FastEncoder(encoder), threads or torch.get_num_threads())
        self.step_rows = self._threads.step_rows if self._threads else _step_rows(encoder, self.device)
        self.few_rows = _FEWEST_ROWS if self._threads else self.step_rows // 4
        # Numbers of rows that a step is filled up to, as each is compiled, and on a CUDA device recorded, by itself.
        self._sizes: list[int] = []
        if compiled and self._threads is None:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._plain = torch.compile(self.encoder, dynamic=False, mode=mode)
            self._sizes = sorted({min(size, self.step_rows) for size in (64, 512, self.step_rows)})

    def worker_engines(self) -> "list[Engine]":
        """Engines that share this one's weights, each for a thread of its own: as many as this one has threads.

        For callers that have always several steps to compute, whose threads then need not wait for each other.
        """
        if self._threads is None or self._threads.count == 1:
            return [self]
        workers = [copy.copy(self) for _ in range(self._threads.count)]
        for worker in workers:
            worker._threads = self._threads.single()  # noqa: SLF001 (of its own class)
            worker.step_rows = worker._threads.step_rows  # noqa: SLF001
        return workers

    def bind_thread(self) -> None:
        """Make the thread that calls, from which alone the engine is used from now on, one for this device."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        elif self._threads is not None and self._threads.count == 1:
            _compute_alone()

    def tokens(self, shape: Geometry, embeddings: Tensor) -> Quantized:
        """Codes and distances (rows,) of a structure's rows, with embeddings (codes, out) on the device.

        Rows are prepared, encoded and quantized a step at a time, which bounds the memory; where a CPU's threads
        compute, by each of them a step of its own. Raises ModelError as `quantize` does.
        """
        return self.tokens_and_vectors(shape, embeddings, keep=False)[0]

    def tokens_and_vectors(
        self, shape: Geometry, embeddings: Tensor, *, keep: bool = True
    ) -> tuple[Quantized, NDArray[np.float32]]:
        """As `tokens`, and the vectors (rows, out) too; if they are not kept, (rows, 0)."""
        encode = self.vectors if self._threads is None else self._threads.block

        def step(part: slice) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
            z = encode(shape.rows(part))
            return *self.quantize(z, embeddings), z[:, : None if keep else 0].float().cpu().numpy()

        found = self._parts(len(shape.queries), step)
        if not found:
            out = self.encoder.config.out if keep else 0
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32)), np.empty((0, out), np.float32)
        codes, distances, vectors = (np.concatenate(column) for column in zip(*found, strict=True))
        return Quantized(codes, distances), vectors

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), float32, on the device; in steps of `step_rows`, which bound the memory."""

        def step(part: slice) -> Tensor:
            return encode(rows.part(part.start, part.stop))

        encode = self._step if self._threads is None else self._threads.block
        found = self._parts(len(rows.offset), step)
        return torch.cat(found) if found else torch.empty(0, self.encoder.config.out, device=self.device)

    def _parts(self, total: int, step: Callable[[slice], T]) -> list[T]:
        """What becomes of all rows, part by part, in their order."""
        if self._threads is not None:
            return self._threads.map(step, total)
        bounds = [*range(0, total, self.step_rows), total]
        return [step(slice(start, stop)) for start, stop in pairwise(bounds)]

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Nearest codes of z (rows, out) among embeddings (codes, out), both on the device.

        Raises ModelError if a vector is not finite: it has no nearest code.
        """
        with torch.inference_mode():
            codes, distances = nearest_code(z, embeddings)
        apart = distances.cpu().numpy()
        if not np.isfinite(apart).all():
            raise ModelError("the encoder computed a vector that is not finite")
        return Quantized(codes.cpu().numpy(), apart)

    def frameless_code(self, embeddings: Tensor) -> int:
        """The code (of ESM3: 955) of every residue that has no frame."""
        with torch.inference_mode():
            z = self.encoder.without_frame()[None].float()
        return int(self.quantize(z, embeddings).codes[0])

    def warm_up(self, embeddings: Tensor) -> None:
        """Compute steps of rows that tell nothing, so that the first request does not wait for libraries."""
        for size in self._sizes or [self.step_rows]:
            self.quantize(self.vectors(_empty(size)), embeddings)

    def probe(self, embeddings: Tensor) -> None:
        """Compute one row that tells nothing. Raises what the device raises if it computes nothing any more."""
        self.quantize(self.vectors(_empty(1)), embeddings)

    def _step(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out) by the plain encoder."""
        count = len(rows.offset)
        if self._sizes:
            rows = _filled(rows, next(size for size in self._sizes if size >= count))
        columns = [torch.from_numpy(column) for column in rows]
        if self.device.type == "cuda":  # from pinned memory a copy does not hold up the thread
            columns = [column.pin_memory() for column in columns]
        with torch.inference_mode(), self._precisely():
            z = self._plain(*(column.to(self.device, non_blocking=True) for column in columns))[:count].float()
        return z.clone() if self._sizes else z  # the memory of a recorded graph is used by the next step

    @contextmanager
    def _precisely(self) -> Iterator[None]:
        if self.precision is Precision.BF16:
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
        elif self.precision is Precision.TF32:
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = True
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32 = before
        else:
            yield


def _empty(count: int) -> Neighborhoods:
    """Rows that tell nothing."""
    shape = (count, NEIGHBORS)
    return Neighborhoods(
        np.broadcast_to(np.eye(3, dtype=np.float32), (*shape, 3, 3)).copy(),
        np.zeros((*shape, 3), np.float32),
        np.full(shape, OFFSET_LIMIT + 1, np.int64),
        np.ones(shape, np.bool_),
    )


def _filled(rows: Neighborhoods, count: int) -> Neighborhoods:
    """The rows, and so many that tell nothing that there are `count`."""
    missing = count - len(rows.offset)
    return concatenate([rows, _empty(missing)]) if missing else rows


class _Threads:
    """A CPU's threads, each with its share of the rows and memory of its own.

    Sharing rows is faster than sharing each operation, as torch does by itself: operations are many and small.
    """

    def __init__(self, encoder: FastEncoder, count: int) -> None:
        self._encoder = encoder
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._own = threading.local()
        self.step_rows = count * encoder.block_rows

    def single(self) -> "_Threads":
        """The same of one thread, the caller's."""
        return _Threads(self._encoder, 1)

    def map(self, task: Callable[[slice], T], total: int) -> list[T]:
        """What the task makes of all rows, in parts that suit the threads, in their order."""
        parts = -(-total // self._encoder.block_rows)
        if total >= self.count * _FEWEST_ROWS:
            parts = -(-parts // self.count) * self.count
        bounds = np.linspace(0, total, parts + 1).astype(int).tolist()
        slices = [slice(start, stop) for start, stop in pairwise(bounds)]
        if self.count == 1 or parts <= 1:
            return [task(part) for part in slices]
        if self._pool is None:
            self._pool = _single_threaded(self.count)
        return list(self._pool.map(task, slices))

    def block(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), by the thread that calls."""
        if not hasattr(self._own, "work"):
            self._own.work = Workspace()
        return self._encoder(rows, self._own.work)


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """Threads in which torch uses no others."""
    pool = ThreadPoolExecutor(count, "encoder", initializer=_compute_alone)
    started = threading.Barrier(count)
    list(pool.map(lambda _: started.wait(), range(count)))
    return pool


def _compute_alone() -> None:
    """Let torch use no other threads in the thread that calls."""
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        # What a thread sets is also what threads to come begin with; this one ends at once, and leaves them what was.
        restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
        restoring.start()
        restoring.join()


def _step_rows(encoder: Encoder, device: torch.device) -> int:
    config = encoder.config
    widest = NEIGHBORS * max(NEIGHBORS * config.heads, 2 * config.hidden, 15 * config.heads)
    return max(16, _STEP_ELEMENTS.get(device.type, _STEP_ELEMENTS_ELSEWHERE) // widest)
