"""Vectors and tokens of a whole set, computed by all processes together."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.distributed.process_group import ProcessGroup
from foldmint_maintenance.training.phases import Advance, ignored
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine

_BATCH = 4096


def vectors_of(
    encoder: Encoder,
    data: PreparedSet,
    select: NDArray[np.integer],
    group: ProcessGroup,
    device: torch.device | str,
    report: Advance = ignored,
) -> Tensor:
    """z (rows, out), float32, on the CPU, of the rows `select` of a set. report: called with how many more are done."""
    parts = []
    for z in _encoded(encoder, data, select, group, device):
        parts.append(z.cpu())
        report(len(z))
    return torch.cat(parts)[: len(select)]


def tokens_of(
    encoder: Encoder,
    codebook: Codebook,
    data: PreparedSet,
    group: ProcessGroup,
    device: torch.device | str,
    report: Advance = ignored,
) -> NDArray[np.int64]:
    """Tokens (residues,) of a set, those of residues without a frame included. report: as of `vectors_of`."""
    embeddings = codebook.embeddings.to(device)
    parts = []
    for z in _encoded(encoder, data, np.arange(len(data)), group, device):
        parts.append(nearest_code(z, embeddings)[0].cpu())
        report(len(z))
    codes = torch.cat(parts)[: len(data)]
    frameless, _ = nearest_code(encoder.without_frame().detach()[None], embeddings)
    tokens = np.full(len(data.chain), int(frameless), np.int64)
    tokens[data.shape.queries] = codes.numpy()
    return tokens


def kept_tokens(
    path: Path,
    encoder: Encoder,
    codebook: Codebook,
    data: PreparedSet,
    group: ProcessGroup,
    device: torch.device | str,
    report: Advance = ignored,
) -> NDArray[np.int64]:
    """`tokens_of`, cached by rank 0 in a file; recomputed if the file is of another encoder, codebook or set."""
    made_of = _digest(encoder, codebook, data)
    found = _read_tokens(path, made_of, len(data.chain)) if group.rank == 0 else None
    if int(group.broadcast(torch.tensor(int(found is not None), device=device))):
        kept = torch.zeros(len(data.chain), dtype=torch.int64) if found is None else found
        return group.broadcast(kept.to(device)).cpu().numpy()
    tokens = tokens_of(encoder, codebook, data, group, device, report)
    if group.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        save_file({"tokens": torch.from_numpy(tokens).to(torch.int16)}, part, {"made_of": made_of})
        part.replace(path)
    return tokens


def _read_tokens(path: Path, made_of: str, count: int) -> Tensor | None:
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("made_of") != made_of:
                return None
            tokens: Tensor = file.get_tensor("tokens").long()
    except (OSError, SafetensorError):
        return None
    return tokens if tokens.shape == (count,) else None


def _digest(encoder: Encoder, codebook: Codebook, data: PreparedSet) -> str:
    state = {**encoder.state_dict(), "": codebook.embeddings}
    digest = hashlib.sha256(data.digest().encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _encoded(
    encoder: Encoder, data: PreparedSet, select: NDArray[np.integer], group: ProcessGroup, device: torch.device | str
) -> Iterator[Tensor]:
    """Vectors of the rows in order, padded at the end: every process takes equally many rows of a batch."""
    engine = Engine(encoder, device)
    step = _BATCH * group.size
    for start in range(0, len(select), step):
        some = select[start : start + step]
        filled = np.resize(some, -(-len(some) // group.size) * group.size)
        yield group.all_gather(engine.vectors(data.rows(filled[group.even_slice(len(filled))])))
