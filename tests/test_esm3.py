"""The way of ESM3's weights: the reference's state dict, imported, served, asked for over gRPC; the same tokens."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foldmint_client import Client
from foldmint_tokenizer import read_backbones
from support import REFERENCE_WARNINGS, ROOT, running_server

pytestmark = REFERENCE_WARNINGS


def test_imported_and_served(reference_class: Any, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = reference_class(192, 1, 24, 2, 48, 4096).eval()
    with torch.no_grad():
        reference.relative_positional_embedding.embedding.weight.normal_()
        # At birth all vectors are much alike: codes are laid around them, so that many are in use.
        vectors: list[torch.Tensor] = []
        hook = reference.pre_vq_proj.register_forward_hook(lambda module, given, z: vectors.append(z[0]))
        (chain,) = read_backbones(data / "4cup.cif.gz")
        reference.encode(torch.from_numpy(chain.coordinates)[None])
        hook.remove()
        reference.codebook.embeddings.mul_(vectors[0].std(0)).add_(vectors[0].mean(0))
    torch.save(reference.state_dict(), tmp_path / "encoder.pth")
    roots = os.pathsep.join(str(ROOT / name) for name in ("tokenizer", "maintenance"))
    command = [sys.executable, "-m", "foldmint_maintenance.cli", "import-esm3"]
    subprocess.run(
        [*command, "--encoder", tmp_path / "encoder.pth", "--out", tmp_path / "store"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": roots},
    )
    same: list[bool] = []
    codes: set[int] = set()
    with running_server("--model", str(tmp_path / "store")) as server, Client(server.address) as client:
        for name in ("1a8o.cif", "2beg.cif.gz", "4cup.cif.gz", "1lcd.cif.gz", "1gbt.cif.gz"):
            answer = client.tokenize(data / name)
            for backbone, own in zip(read_backbones(data / name), answer.chains, strict=True):
                with torch.no_grad():
                    _, expected = reference.encode(
                        torch.from_numpy(backbone.coordinates)[None],
                        residue_index=torch.from_numpy(backbone.residue_index)[None],
                    )
                same += (own.tokens == expected[0].numpy()).tolist()
                codes.update(expected[0].tolist())
    assert len(same) == 589
    assert len(codes) > 100
    assert np.all(same)
