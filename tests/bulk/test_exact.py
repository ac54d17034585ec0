"""Jobs give the rows of a plain loop, whatever is killed, damaged or full: see `benchmarks bulk-exact`.

test_ray.py compares Ray with the local engine.
"""

import subprocess
from pathlib import Path

import pytest

from benchmarks.bulk.bulk_exact import compare
from foldmint_maintenance.datasets.records import read_parquet, write_parquet
from helpers.support import DATA


def _may_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_agree_with_a_plain_loop(tmp_path: Path) -> None:
    short = [record for record in read_parquet(DATA / "chains.parquet") if len(record.sequence) < 150]
    write_parquet((short * 24)[:24], tmp_path / "set.parquet")
    figures = compare(
        [tmp_path / "set.parquet"],
        tmp_path / "jobs",
        structures=24,
        members=6,
        unit_structures=3,
        kills=1,
        within=1.5,
        slices=2,
        engines=["local"],
        disk=_may_mount(),
    )
    assert figures["killed"] == {"worker": 1, "parser": 1, "driver": 1}
