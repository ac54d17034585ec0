"""Vectors and tokens of a whole set, its rows shared among the processes."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.corpus import PreparedSet
from foldmint_maintenance.group import Group
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine

_BATCH = 4096


def vectors_of(
    encoder: Encoder, data: PreparedSet, select: NDArray[np.integer], group: Group, device: torch.device | str
) -> Tensor:
    """z (rows, out), float32, on the CPU, of the rows `select` of a set."""
    return torch.cat([z.cpu() for z in _encoded(encoder, data, select, group, device)])[: len(select)]


def tokens_of(
    encoder: Encoder, codebook: Codebook, data: PreparedSet, group: Group, device: torch.device | str
) -> NDArray[np.int64]:
    """Codes (residues,) of a set; residues without a frame have theirs."""
    embeddings = codebook.embeddings.to(device)
    parts = _encoded(encoder, data, np.arange(len(data)), group, device)
    codes = torch.cat([nearest_code(z, embeddings)[0].cpu() for z in parts])[: len(data)]
    frameless, _ = nearest_code(encoder.without_frame().detach()[None], embeddings)
    tokens = np.full(len(data.chain), int(frameless), np.int64)
    tokens[data.shape.queries] = codes.numpy()
    return tokens


def _encoded(
    encoder: Encoder, data: PreparedSet, select: NDArray[np.integer], group: Group, device: torch.device | str
) -> Iterator[Tensor]:
    """z of the rows in order, and of a few more at the end: each process takes as many of a batch."""
    engine = Engine(encoder, device)
    step = _BATCH * group.size
    for start in range(0, len(select), step):
        some = select[start : start + step]
        filled = np.resize(some, -(-len(some) // group.size) * group.size)
        yield group.joined(engine.vectors(data.rows(filled[group.part(len(filled))])))
