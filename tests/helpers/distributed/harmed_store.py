"""A store of real vectors with few codes, some of which were killed: small enough to be repaired in a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from foldmint_maintenance.datasets.records import Record, prepared
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.vq import quantizer
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store, load_model

CODES = 64
KILLED = (3, 17, 31, 32, 50, 63)


def create_harmed_store(path: Path, records: Sequence[Record]) -> None:
    """The default encoder with a codebook of 64 codes, trained on records; in its second version, some are killed."""
    default = load_model()
    sizes = default.config
    encoder = Encoder(ModelConfig(sizes.width, sizes.heads, sizes.layers, sizes.out, CODES))
    encoder.load_state_dict(default.encoder.state_dict())
    data = prepared(records)
    z = vectors_of(encoder, data, np.arange(len(data)), ALONE, "cpu")
    trained = quantizer.first_codebook(z, CODES, 10, 0, 0, len(z))
    create_store(path, name="loop", encoder=encoder, codebook=trained, about={})
    dead = torch.zeros(CODES, dtype=torch.bool)
    dead[list(KILLED)] = True
    vectors = torch.where(dead[:, None], trained.embeddings + 1e4, trained.embeddings)
    counts = torch.where(dead, torch.zeros_like(trained.N), trained.N)
    store = Store(path)
    store.publish(Codebook(vectors, counts, vectors * counts[:, None]), parent="000001", about={})
    store.activate("000002")
