"""Shared code of the baseline servers: the default model, with one call for all structures of a batch."""

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._published import published, published_tokens
from foldmint_tokenizer import Backbone
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.neighborhoods import Geometry, concatenate, structure_geometry
from foldmint_tokenizer.store.model_store import load_model
from foldmint_tokenizer.tokens import TokenizedChain, TokenizeOptions, assembled

BATCH_WAIT = 0.002
"""Seconds that a batch may wait to be filled, as long as a step of foldmint-server."""


@dataclass(frozen=True)
class Parsed:
    """A structure, ready to be computed."""

    backbones: Sequence[Backbone]
    shape: Geometry


def parsed(backbones: Sequence[Backbone]) -> Parsed:
    """The structure of some chains."""
    return Parsed(backbones, structure_geometry(backbones))


class BatchModel:
    """The default model; one thread computes at a time. threads: of a computation."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        model = load_model()
        self._engine, self._embeddings = Engine(model.encoder), model.codebook.codebook.embeddings
        self._frameless = self._engine.frameless_code(self._embeddings)
        self._engine.warm_up(self._embeddings)
        self._lock = threading.Lock()
        self.name = model.name

    def tokenize(self, batch: Sequence[Parsed]) -> list[list[TokenizedChain]]:
        """The tokens of each structure: rows of all, one after another, in one call of the engine."""
        sizes = [len(one.shape.queries) for one in batch]
        rows = concatenate([one.shape.rows(slice(0, size)) for one, size in zip(batch, sizes, strict=True)])
        with self._lock:
            codes, distances = self._engine.quantize(self._engine.vectors(rows), self._embeddings)
        ends = np.cumsum(sizes).tolist()
        return [
            self._assembled(one, codes[end - size : end], distances[end - size : end])
            for one, size, end in zip(batch, sizes, ends, strict=True)
        ]

    def _assembled(self, one: Parsed, codes: NDArray[np.int64], distances: NDArray[np.float32]) -> list[TokenizedChain]:
        return assembled(one.backbones, one.shape, codes, distances, self._frameless, TokenizeOptions())


class PublishedModel:
    """The published encoder with the default model's weights, chain after chain: what there is without Foldmint."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        model = load_model()
        codebook = model.codebook.codebook
        self._encoder = published(model.config)
        state = {f"codebook.{name}": value for name, value in codebook._asdict().items()}
        self._encoder.load_state_dict({**self._encoder.state_dict(), **model.encoder.state_dict(), **state})
        self._frameless = Engine(model.encoder).frameless_code(codebook.embeddings)
        self.name = model.name

    def tokenize(self, batch: Sequence[Parsed]) -> list[list[TokenizedChain]]:
        """The tokens of each structure."""
        return [self._one(one) for one in batch]

    def _one(self, one: Parsed) -> list[TokenizedChain]:
        each = [published_tokens(self._encoder, chain.coordinates, chain.residue_index) for chain in one.backbones]
        codes = np.concatenate(each)[one.shape.queries]
        nothing = np.zeros(len(codes), np.float32)
        return assembled(one.backbones, one.shape, codes, nothing, self._frameless, TokenizeOptions())


MODELS: dict[str, type[BatchModel | PublishedModel]] = {"engine": BatchModel, "published": PublishedModel}
"""What computes: our engine, or the published encoder."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
