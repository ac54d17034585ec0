"""How far codes lie apart: vectors of a codebook, read from the file codebook.safetensors of a store."""

import json
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldmint_client.errors import UnreadableInput

_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2"}
_MOST_HEADER = 2**20
_MOST_BYTES = 2**30


class CodeVectors:
    """embeddings: (codes, dimensions), float32."""

    def __init__(self, embeddings: npt.NDArray[np.float32]) -> None:
        self.embeddings = embeddings

    def __len__(self) -> int:
        """Number of codes."""
        return len(self.embeddings)

    @cached_property
    def distances(self) -> npt.NDArray[np.float32]:
        """Euclidean distances of all pairs, (codes, codes), in the units of the vectors."""
        vectors = self.embeddings.astype(np.float64)
        squares = (vectors**2).sum(1)
        result = np.empty((len(vectors), len(vectors)), np.float32)
        for start in range(0, len(vectors), 512):
            part = slice(start, start + 512)
            found = squares[part, None] + squares - 2 * vectors[part] @ vectors.T
            result[part] = np.sqrt(np.maximum(found, 0))
        np.fill_diagonal(result, 0)
        return result

    def near(self, share: float) -> float:
        """The distance that this share of all pairs of two codes is not above."""
        pairs = self.distances[np.triu_indices(len(self), 1)]
        return float(np.quantile(pairs, share, method="lower")) if pairs.size else 0.0


def read(path: Path) -> CodeVectors:
    """The tensor `embeddings` of a safetensors file. Raises UnreadableInput.

    The form of the file: https://github.com/huggingface/safetensors#format, the header's length in 8 bytes, the header
    in JSON, and the tensors' bytes.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= _MOST_HEADER:
                raise ValueError("not a safetensors file")
            about = json.loads(stream.read(length))["embeddings"]
            shape, (start, end) = tuple(about["shape"]), about["data_offsets"]
            dtype = np.dtype(_TYPES[about["dtype"]])
            if len(shape) != 2 or not 0 < end - start == math.prod(shape) * dtype.itemsize <= _MOST_BYTES:
                raise ValueError("its embeddings have no shape (codes, dimensions)")
            stream.seek(8 + length + start)
            embeddings = np.frombuffer(stream.read(end - start), dtype).reshape(shape).astype(np.float32)
    except OSError as error:
        raise UnreadableInput(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"there is no {error} of a kind that can be read" if isinstance(error, KeyError) else error
        raise UnreadableInput(f"{path}: {reason}") from error
    if not np.isfinite(embeddings).all():
        raise UnreadableInput(f"{path}: its embeddings are not finite")
    return CodeVectors(embeddings)
