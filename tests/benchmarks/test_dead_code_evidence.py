"""How many residues it takes to judge all codes, and what few repeated structures prove."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.codebook.dead_code_evidence import main, needed_residues_a_code


def test_codes_of_one_frequency_need_the_logarithm_of_their_number() -> None:
    """At most one of them may then be expected to stay unhit by chance."""
    assert needed_residues_a_code(np.ones(4096)) == pytest.approx(math.log(4096), rel=2e-3)


@pytest.mark.slow
def test_repetition_proves_nothing(tmp_path: Path) -> None:
    main(times=3, file=tmp_path / "told.json")
    first, *_, last = json.loads((tmp_path / "told.json").read_text())["rows"]
    assert last["residues_a_code"] == 3 * first["residues_a_code"]
    for name in ("unhit", "called_dead"):
        assert first[name] == last[name]
    assert last["independent_residues_a_code"] == pytest.approx(first["independent_residues_a_code"], rel=0.01)
    assert last["called_dead"] <= 4 < last["unhit"]
