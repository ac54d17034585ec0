"""The way of ESM3's weights: the reference's state dicts, imported, served, asked for; same tokens, same backbones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foldmint_client import Client
from foldmint_tokenizer import StructureDetokenizer, read_backbones
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS
from helpers.support import REFERENCE_WARNINGS, ROOT, running_server

pytestmark = REFERENCE_WARNINGS


def _imported(*arguments: str | Path) -> str:
    """What the command says, once it has done it."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("tokenizer", "maintenance"))
    done = subprocess.run(
        [sys.executable, "-m", "foldmint_maintenance.cli", "import-esm3", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": roots},
    )
    return done.stdout


@pytest.mark.slow
def test_imported_and_served(reference_class: Any, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = reference_class(192, 1, 24, 2, 48, 4096).eval()
    with torch.no_grad():
        reference.relative_positional_embedding.embedding.weight.normal_()
        # At birth all vectors are much alike: codes are laid around them, so that many are in use.
        vectors: list[torch.Tensor] = []
        reference.pre_vq_proj.register_forward_hook(lambda module, given, z: vectors.append(z[0]))
        (chain,) = read_backbones(data / "4cup.cif.gz")
        reference.encode(torch.from_numpy(chain.coordinates)[None])
        reference.codebook.embeddings.mul_(vectors[0].std(0)).add_(vectors[0].mean(0))
    torch.save(reference.state_dict(), tmp_path / "encoder.pth")
    _imported("--encoder", tmp_path / "encoder.pth", "--out", tmp_path / "store")
    same: list[bool] = []
    farther: list[float] = []
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
                to_own, to_expected = (
                    (vectors[-1] - reference.codebook.embeddings[tokens]).norm(dim=-1)
                    for tokens in (torch.from_numpy(own.tokens).long(), expected[0])
                )
                farther += (to_own - to_expected).tolist()
                codes.update(expected[0].tolist())
    assert len(same) == 589
    assert len(codes) > 100
    # Sums in another order may choose the other of two codes that float32 cannot tell apart.
    assert max(farther) < 1e-5
    assert np.mean(same) > 0.995


@pytest.mark.slow
def test_an_imported_decoder_places_what_the_reference_does(
    reference_class: Any, reference_decoder_class: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(reference_class(32, 1, 4, 1, 8, 4096).state_dict(), tmp_path / "encoder.pth")
    files = ("--encoder", tmp_path / "encoder.pth", "--decoder", tmp_path / "decoder.pth")
    for heads, told in ((3, ()), (6, ("--decoder-heads", "6"))):
        reference = reference_decoder_class(192, heads, 2).eval()
        torch.save(reference.state_dict(), tmp_path / "decoder.pth")
        out = tmp_path / f"store-{heads}"
        said = _imported(*files, *told, "--out", out)
        assert f"its decoder: width 192, {heads} heads, 2 layers" in said
        tokens = torch.cat([torch.randint(0, 4096, (70,)), torch.tensor([CHAINBREAK]), torch.randint(0, 4096, (30,))])
        with torch.no_grad():
            expected = reference.decode(torch.cat([torch.tensor([BOS]), tokens, torch.tensor([EOS])])[None])
        first, second = StructureDetokenizer.load(out).detokenize(tokens.numpy()).chains
        atoms = expected["bb_pred"][0].numpy()
        np.testing.assert_allclose(first.coordinates, atoms[1:71], rtol=0, atol=1e-3)
        np.testing.assert_allclose(second.coordinates, atoms[72:102], rtol=0, atol=1e-3)
