"""The profile's stages add up, and each is really called."""

import json
from pathlib import Path

import torch

from benchmarks.speed import profile
from foldmint_tokenizer.cpu.weights import Products, fastest_products
from foldmint_tokenizer.store.model_store import load_model

PARTS = {"embedding", "geometric attention", "norms, biases", "SwiGLU between its products"}
"""Of compiled layers, in one with others."""


def test_stages_of_a_few_chains(tmp_path: Path) -> None:
    mm, threads = torch.mm, torch.get_num_threads()
    fastest = fastest_products(load_model().config)
    compiled = fastest is not Products.TORCH
    profile.main(tmp_path / "profile.json", rounds=1, chains=3)
    assert torch.mm is mm
    assert torch.get_num_threads() == threads
    found = json.loads((tmp_path / "profile.json").read_text())
    for way, seconds in found["seconds"].items():
        whole = seconds.pop(profile.WHOLE)
        assert abs(sum(seconds.values()) - whole) < 1e-9
        in_parts = way.startswith("in parts")
        tiled = fastest is Products.TILES and not in_parts
        for stage, value in seconds.items():
            if stage == "reading":
                assert (value > 0) == (way in profile.FILES)
            elif stage == "compiled layers":
                assert value == 0 or not in_parts
            elif stage == "nearest code, by tiles":
                assert (value > 0) == tiled
            elif stage in ("nearest code, after its product", "products with weights and codes"):
                assert (value > 0) != tiled
            elif in_parts or stage not in PARTS or not compiled:
                assert value > 0, (way, stage)
            else:
                assert value == 0, (way, stage)
    by_chain, by_file = found["tables"]
    assert "reading" not in [row[0] for row in by_chain["rows"]]
    assert by_file["rows"][0][0] == "reading"
