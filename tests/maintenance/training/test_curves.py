"""The curves of a training."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.training.curves import draw, read_log, smoothed

LOG = "step,loss,reach,seconds\n1,4.0,0,1\n2,2.0,0,2\n3,1.0,0,3\n"


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_is_read_without_what_is_zero_throughout(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(LOG.encode()) if packed else LOG.encode())
    columns = read_log(path)
    assert set(columns) == {"step", "loss", "seconds"}
    np.testing.assert_array_equal(columns["loss"], [4, 2, 1])


@pytest.mark.parametrize("content", [b"", b"step,loss\n", b"loss\n1\n", b"step,loss\n1\n", b"step\nx\n", b"\xff\n\xff"])
def test_what_is_no_log_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidSet, match="not a log of a training"):
        read_log(path)


def test_means_are_of_what_is_there() -> None:
    np.testing.assert_allclose(smoothed(np.array([0.0, 3.0, 6.0, 9.0]), 2), [1.5, 3, 6, 7.5])
    np.testing.assert_allclose(smoothed(np.array([5.0])), [5])


def test_curves_have_a_plot_for_each_figure_and_are_the_same_each_time(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(LOG)
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    draw(read_log(log), first)
    draw(read_log(log), second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().count('id="axes_') == 1
