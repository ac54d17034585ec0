"""Runs the encoder and nearest-code search on one device."""

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.cpu.code_search import CodeSearch
from foldmint_tokenizer.cpu.fast_encoder import FastEncoder
from foldmint_tokenizer.cpu.threads import FEWEST_ROWS, EncoderThreads, use_one_thread
from foldmint_tokenizer.cpu.weights import Products
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import (
    NEIGHBORS,
    Geometry,
    Neighborhoods,
    build_geometry,
    dummy_rows,
    padded,
)

# Elements of the largest intermediate array of a step of the plain encoder, (rows, 16, 16, heads) or
# (rows, 16, 2 * hidden): large enough to keep a device busy, small enough for short steps and little memory. 64 MiB of
# float32 on a CPU, 1 GiB elsewhere.
_STEP_ELEMENTS = {"cpu": 2**24}
_STEP_ELEMENTS_ELSEWHERE = 2**28

# Guards torch's permission of TF32, which holds for all threads of the process.
_TF32_LOCK = threading.Lock()

T = TypeVar("T")
_Found = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]


class Quantized(NamedTuple):
    """codes: (rows,) int64. distances: (rows,) float32, from each vector to its code."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]


class Precision(StrEnum):
    """Precision of the encoder's matrix products; quantization is always float32. TF32 and BF16 change a few tokens.

    TF32: on CUDA devices, products with a mantissa of ten bits and float32 inputs and outputs. BF16: weights and
    activations of products in bfloat16, geometry in float32.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    BF16 = "bf16"


class Engine:
    """An encoder's current weights on a device. Not thread-safe.

    threads: number of CPU threads that compute in parallel; by default as many as torch uses. compiled: fuse the
    encoder with torch.compile, for a few numbers of rows; needs a compiler, and takes a minute at the start. step_rows:
    rows computed at once. few_rows: below this number, rows are not worth splitting among devices.

    A CPU runs `FastEncoder`, except `compiled` in bf16; everything else runs `Encoder`. Raises ModelError if
    the device does not support the precision.
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
        self._threads: EncoderThreads | None = None
        half = precision is Precision.BF16
        if self.device.type == "cpu" and not (half and compiled):
            fast = FastEncoder(encoder, Products.BF16 if half else None)
            self._threads = EncoderThreads(fast, threads or torch.get_num_threads())
            # Wide encoders are ESM's: of codes that float32 cannot tell apart, they are to choose the one that it does.
            self._search = CodeSearch(by_tiles=fast.products is Products.TILES)
        self.step_rows = self._threads.step_rows if self._threads else _step_rows(encoder, self.device)
        self.few_rows = FEWEST_ROWS if self._threads else self.step_rows // 4
        # Steps are padded to these numbers of rows: each is compiled, and recorded on a CUDA device, separately.
        self._sizes: list[int] = []
        if compiled and self._threads is None:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._plain = torch.compile(self.encoder, dynamic=False, mode=mode)
            self._sizes = sorted({min(size, self.step_rows) for size in (64, 512, self.step_rows)})

    def worker_engines(self) -> "list[Engine]":
        """Engines that share this one's weights, one for each of its threads.

        For callers that always have several steps to compute: their threads need not wait for each other.
        """
        if self._threads is None or self._threads.count == 1:
            return [self]
        workers = [copy.copy(self) for _ in range(self._threads.count)]
        for worker in workers:
            worker._threads = self._threads.single()  # noqa: SLF001 (of its own class)
            worker.step_rows = worker._threads.step_rows  # noqa: SLF001
        return workers

    def bind_thread(self) -> None:
        """Prepare the calling thread, from then on the engine's only one, for this device."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        elif self._threads is not None and self._threads.count == 1:
            use_one_thread()

    def tokens(self, geometry: Geometry, embeddings: Tensor) -> Quantized:
        """Codes and distances (queries,) of a structure; embeddings: (codes, out), on the device.

        Residues are prepared, encoded and quantized step by step, which bounds the memory; a CPU's threads each compute
        steps of their own. Raises ModelError as `quantize` does.
        """
        return self.tokens_and_vectors(geometry, embeddings, keep=False)[0]

    def tokens_and_vectors(
        self, geometry: Geometry, embeddings: Tensor, *, keep: bool = True
    ) -> tuple[Quantized, NDArray[np.float32]]:
        """Codes and distances as in `tokens`, and the vectors (queries, out), or (queries, 0) if not `keep`."""
        if self._threads is not None:
            return self._shared(geometry, embeddings, self._threads, keep=keep)
        found = self._overlapped(geometry, embeddings, keep=keep)
        if not found:
            out = self.encoder.config.out if keep else 0
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32)), np.empty((0, out), np.float32)
        codes, distances, vectors = (np.concatenate(column) for column in zip(*found, strict=True))
        return Quantized(codes, distances), vectors

    def _shared(
        self, geometry: Geometry, embeddings: Tensor, threads: "EncoderThreads", *, keep: bool
    ) -> tuple[Quantized, NDArray[np.float32]]:
        """As `tokens_and_vectors`, by a CPU's threads."""
        total, out = len(geometry.queries), self.encoder.config.out if keep else 0
        found = Quantized(np.empty(total, np.int64), np.empty(total, np.float32))
        vectors = np.empty((total, out), np.float32)

        def step(part: slice) -> None:
            # Written to arrays of all rows: results kept for each part would scatter what the allocator frees.
            z = threads.block(geometry.rows(part))
            found.codes[part], found.distances[part] = self._nearest(z, embeddings)
            vectors[part] = z[:, :out].numpy()

        threads.map(step, total)
        return found, vectors

    def vectors(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), float32, on the device; computed in steps of `step_rows`, which bound the memory."""

        def step(part: slice) -> Tensor:
            return encode(rows.part(part.start, part.stop))

        encode = self._step if self._threads is None else self._threads.block
        found = self._parts(len(rows.offset), step)
        none = torch.empty(0, self.encoder.config.out, dtype=torch.float32, device=self.device)
        return torch.cat(found) if found else none

    def _parts(self, total: int, step: Callable[[slice], T]) -> list[T]:
        """The results of a step for all rows, part by part, in order."""
        if self._threads is not None:
            return self._threads.map(step, total)
        return [step(part) for part in self._slices(total)]

    def _slices(self, total: int) -> list[slice]:
        """All rows, in slices of `step_rows`."""
        bounds = [*range(0, total, self.step_rows), total]
        return [slice(start, stop) for start, stop in pairwise(bounds)]

    def _overlapped(self, geometry: Geometry, embeddings: Tensor, *, keep: bool) -> list[_Found]:
        """Codes, distances and vectors, step by step.

        While the device computes a step, the next one's rows are prepared in a thread, and the last one's results are
        copied to the host: the device waits for neither.
        """
        found: list[_Found] = []
        parts, computing = self._slices(len(geometry.queries)), None
        with ThreadPoolExecutor(1, "rows") as preparing:
            prepared = deque(preparing.submit(geometry.rows, part) for part in parts[:1])
            for place in range(len(parts)):
                prepared += [preparing.submit(geometry.rows, part) for part in parts[place + 1 : place + 2]]
                z = self._step(prepared.popleft().result())
                codes, distances = self._nearest_on_device(z, embeddings)
                if computing is not None:
                    found.append(_fetched(*computing))
                computing = codes, distances, z[:, : None if keep else 0]
        return found if computing is None else [*found, _fetched(*computing)]

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """Nearest codes of z (rows, out) among embeddings (codes, out), both on the device.

        Raises ModelError if a vector is not finite.
        """
        found = self._parts(len(z), lambda part: self._nearest(z[part], embeddings))
        if not found:
            return Quantized(np.empty(0, np.int64), np.empty(0, np.float32))
        return Quantized(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _nearest(self, z: Tensor, embeddings: Tensor) -> Quantized:
        """As `quantize`, in the calling thread."""
        if self._threads is not None:
            return _checked(Quantized(*self._search(z, embeddings)))
        codes, distances, _ = _fetched(*self._nearest_on_device(z, embeddings), z[:, :0])
        return Quantized(codes, distances)

    def _nearest_on_device(self, z: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """As `nearest_code`. The device may still compute when this returns."""
        # In float32, also while another thread allows TF32 for its products.
        with torch.inference_mode(), _TF32_LOCK if self.precision is Precision.TF32 else nullcontext():
            return nearest_code(z, embeddings)

    def frameless_code(self, embeddings: Tensor) -> int:
        """The code of every residue without a frame (955 in ESM3)."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            z = self.encoder.without_frame()[None].float()
        return int(self.quantize(z, embeddings).codes[0])

    def warm_up(self, embeddings: Tensor) -> None:
        """Compute steps of dummy rows, so that the first request does not wait for libraries or for the compiler."""
        build_geometry(np.eye(3)[None], np.zeros(1, np.int64)).rows(slice(None))
        for size in self._sizes or [self.step_rows]:
            self.quantize(self.vectors(dummy_rows(size)), embeddings)

    def probe(self, embeddings: Tensor) -> None:
        """Compute one dummy row. Raises the device's own error if it no longer works."""
        self.quantize(self.vectors(dummy_rows(1)), embeddings)

    def _step(self, rows: Neighborhoods) -> Tensor:
        """z (rows, out), by the plain encoder."""
        count = len(rows.offset)
        if self._sizes:
            rows = padded(rows, next(size for size in self._sizes if size >= count))
        columns = [torch.from_numpy(column) for column in rows]
        if self.device.type == "cuda":  # copies from pinned memory do not block the thread
            columns = [column.pin_memory() for column in columns]
        with torch.inference_mode(), self.precision_context():
            z = self._plain(*(column.to(self.device, non_blocking=True) for column in columns))[:count].float()
        return z.clone() if self._sizes else z  # the next step reuses the memory of a recorded graph

    @contextmanager
    def precision_context(self) -> Iterator[None]:
        """The precision of torch's products in this thread, of those that begin within it, whatever it is outside."""
        if self.precision is Precision.BF16:
            with torch.autocast(self.device.type, torch.bfloat16):
                yield
        elif self.precision is Precision.TF32:
            # A product's precision is decided when it is launched.
            with _TF32_LOCK:
                before = torch.backends.cuda.matmul.allow_tf32
                torch.backends.cuda.matmul.allow_tf32 = True
                try:
                    yield
                finally:
                    torch.backends.cuda.matmul.allow_tf32 = before
        else:
            with torch.autocast(self.device.type, enabled=False):
                yield


def _fetched(codes: Tensor, distances: Tensor, vectors: Tensor) -> _Found:
    """The results of a step, on the host. Raises ModelError if a vector is not finite."""
    found = _checked(Quantized(codes.cpu().numpy(), distances.cpu().numpy()))
    return *found, vectors.detach().float().cpu().numpy()


def _checked(found: Quantized) -> Quantized:
    """Raise ModelError if a distance is not finite."""
    if not np.isfinite(found.distances).all():
        raise ModelError("the encoder computed a vector that is not finite")
    return found


def _step_rows(encoder: Encoder, device: torch.device) -> int:
    config = encoder.config
    widest = NEIGHBORS * max(NEIGHBORS * config.heads, 2 * config.hidden, 15 * config.heads)
    return max(16, _STEP_ELEMENTS.get(device.type, _STEP_ELEMENTS_ELSEWHERE) // widest)
