"""Tokenizes parsed structures in batches of a device."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_bulk.errors import JobDiffers, WorkerFailed
from foldmint_bulk.job import Job
from foldmint_bulk.output.parts import to_tokens
from foldmint_bulk.parsing.results import FAILED, Failure, Parsed
from foldmint_client.models.responses import Tokens

# Residues of structures that are encoded together, by type of device. A CPU gains 5 % at most by more than one
# structure; alone, each has the very tokens that `StructureTokenizer.tokenize` gives it: with others, rounding differs,
# and the nearest of two codes that are equally near.
_BATCH_RESIDUES = {"cpu": 1}
_BATCH_RESIDUES_ELSEWHERE = 2**16


class Tokenized(NamedTuple):
    """A structure's tokens, and the counts (codes,) of the codes of its residues with a frame."""

    source: str
    tokens: Tokens
    hits: NDArray[np.int64]


class BatchTokenizer:
    """A job's model on a device. Batches depend on the structures alone, so that another attempt gives the same.

    device: as torch names it. threads: of the CPU; None: as many as torch takes. device_seconds: that batches took, so
    far. Raises JobDiffers if the store has another model than the job; ModelError if it cannot be loaded, or the job's
    options need another model.
    """

    def __init__(self, job: Job, device: str, threads: int | None, number: int = 0) -> None:
        """number: of the worker among those of a machine, which share out its GPUs."""
        import torch

        from foldmint_tokenizer.motion.assignment import Assignment
        from foldmint_tokenizer.store.model_store import load_model
        from foldmint_tokenizer.tokenizer import StructureTokenizer
        from foldmint_tokenizer.tokens import TokenizeOptions

        if threads is not None:
            torch.set_num_threads(threads)
        expected = job.model
        model = load_model(expected.location, expected.codebook_version)
        for what, wanted, found in (
            ("encoder", expected.encoder_digest, model.encoder_digest),
            ("codebook", expected.codebook_digest, model.codebook.digest),
        ):
            if wanted != found:
                raise JobDiffers(
                    f"{expected.location or 'the embedded model'} has another {what} than the job: its SHA-256 is "
                    f"{found}, the job's {wanted}"
                )
        self._model = expected
        self.device = own_device(device, number)
        self._tokenizer = StructureTokenizer(model, self.device)
        self._options = TokenizeOptions(assignment=Assignment(job.options.assignment))
        self._tokenizer.check(self._options)
        self._batch = _BATCH_RESIDUES.get(torch.device(self.device).type, _BATCH_RESIDUES_ELSEWHERE)
        self.codes = model.config.codes
        self.device_seconds = 0.0

    def tokenized(self, structures: Iterable[Parsed | Failure]) -> Iterator[Tokenized | Failure]:
        """The tokens of structures, in order; failures are passed on."""
        waiting, residues = list[Parsed | Failure](), 0
        for one in structures:
            waiting.append(one)
            if isinstance(one, Parsed):
                residues += one.residues
            if residues >= self._batch:
                yield from self._compute(waiting)
                waiting, residues = [], 0
        yield from self._compute(waiting)

    def _compute(self, waiting: list[Parsed | Failure]) -> Iterator[Tokenized | Failure]:
        done = iter(self._tokens([one for one in waiting if isinstance(one, Parsed)]))
        for one in waiting:
            yield one if isinstance(one, Failure) else next(done)

    def _tokens(self, batch: list[Parsed]) -> list[Tokenized | Failure]:
        from foldmint_tokenizer.errors import ModelError

        if not batch:
            return []
        began = time.monotonic()
        try:
            structures = self._tokenizer.tokenize_parsed([(one.content, one.geometry) for one in batch], self._options)
        except ModelError as error:
            if len(batch) > 1:  # whichever it was, the others are not to blame
                return [alone for one in batch for alone in self._tokens([one])]
            return [Failure(batch[0].source, FAILED, str(error))]
        finally:
            self.device_seconds += time.monotonic() - began
        results = list[Tokenized | Failure]()
        for one, structure in zip(batch, structures, strict=True):
            hits = np.zeros(self.codes, np.int64)
            for chain in structure:
                hits += np.bincount(chain.tokens[chain.has_frame], minlength=self.codes)
            results.append(Tokenized(one.source, to_tokens(structure, self._model), hits))
        return results


def own_device(device: str, number: int) -> str:
    """The device of a worker: a name as torch has it; `auto` and `cuda` are shared out. Raises WorkerFailed."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise WorkerFailed(f"there is no GPU that torch can use; --device {device} needs one")
    return f"cuda:{number % torch.cuda.device_count()}" if device == "cuda" else device
