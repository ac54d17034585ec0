"""The published encoder from the package esm, which `make reference` installs outside the environment."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foldmint_tokenizer.sizes import ModelConfig

_WHERE = Path(__file__).resolve().parent.parent / ".reference"


def installed() -> bool:
    """Whether it is installed."""
    return (_WHERE / "esm").is_dir()


def published(config: ModelConfig) -> Any:  # noqa: ANN401 (a class of esm's)
    """An encoder of these sizes, its weights as they come. Ends the program if it is not installed."""
    sys.path.append(str(_WHERE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from esm.models.vqvae import StructureTokenEncoder
    except ImportError:
        sys.exit("the reference is not installed: make reference")
    return StructureTokenEncoder(config.width, 1, config.heads, config.layers, config.out, config.codes).eval()


def published_tokens(encoder: Any, coordinates: np.ndarray, index: np.ndarray) -> np.ndarray:  # noqa: ANN401
    """The tokens (residues,) of a chain, coordinates (residues, 3, 3), as it computes them."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = torch.from_numpy(coordinates)[None], torch.from_numpy(index)[None]
        tokens: np.ndarray = encoder.encode(given[0], residue_index=given[1])[1][0].numpy()
        return tokens
