"""The profile's stages add up, and each is really called."""

import json
from pathlib import Path

import torch

from benchmarks.speed import profile


def test_stages_of_a_few_chains(tmp_path: Path) -> None:
    mm, threads = torch.mm, torch.get_num_threads()
    profile.main(tmp_path / "profile.json", rounds=1, chains=3)
    assert torch.mm is mm
    assert torch.get_num_threads() == threads
    found = json.loads((tmp_path / "profile.json").read_text())
    for way, seconds in found["seconds"].items():
        whole = seconds.pop(profile.WHOLE)
        assert abs(sum(seconds.values()) - whole) < 1e-9
        assert all(value > 0 for stage, value in seconds.items() if stage != "reading"), way
        assert (seconds["reading"] > 0) == (way in profile.FILES)
    by_chain, by_file = found["tables"]
    assert "reading" not in [row[0] for row in by_chain["rows"]]
    assert by_file["rows"][0][0] == "reading"
