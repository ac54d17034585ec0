"""The costs of very many structures follow from figures that commands measured, and the page has them."""

import json

import pytest

from benchmarks.bulk.scale import FOLDER, NAMES, PAGE
from benchmarks.bulk.scale_costs import PERFORMANCE, costs, times
from benchmarks.speed.performance import rendered

STORED = json.loads((FOLDER / "scale-costs.json").read_text())


def test_the_page_has_what_the_files_have() -> None:
    assert PAGE.read_text() == rendered(PAGE.read_text(), FOLDER, NAMES)


def test_the_tables_follow_from_the_figures_measured_now() -> None:
    found = STORED["measured"] | times(PERFORMANCE)
    remedy = "python -m benchmarks scale-costs --json docs/scale/scale-costs.json"
    assert costs(found, STORED["assumed"]) == STORED["tables"], remedy


def test_costs_are_in_proportion() -> None:
    found = {
        "encode_us": 200.0,
        "read_mmcif_us": 10.0,
        "read_pdb_us": 5.0,
        "input_bytes": 400.0,
        "output_bytes": 2.0,
        "token_bytes": 1.5,
        "entropy_bits": 12.0,
    }
    measured, whole, gpus = costs(found, {"structures": 3_600_000, "residues": 100, "rates": [100_000]})
    figures = {row[0]: row[1] for row in whole["rows"]}
    assert [row[1] for row in measured["rows"]] == [200, 10, 5, 400, 2, 1.5, 1.5, 12]
    # 360 million residues.
    assert figures["tokenizing on CPUs"] == pytest.approx(20)
    assert figures["reading, mmCIF with gzip"] == pytest.approx(1)
    assert figures["input read, mmCIF with gzip"] == pytest.approx(0.144)
    assert figures["output written and stored, Parquet"] == pytest.approx(0.00072)
    assert figures["tokens, packed to 12 bits"] == pytest.approx(figures["tokens, at their entropy"])
    assert figures["units of 10,000 structures"] == 360
    assert gpus["rows"] == [[100_000, pytest.approx(1), pytest.approx(1), pytest.approx(0.5), pytest.approx(0.32)]]
