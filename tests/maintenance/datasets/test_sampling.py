"""Samples of a set: as many chains or residues as asked for, the same for the same seed."""

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.datasets.sampling import drawn_chains, grouped, sample_chains


def test_chains_are_drawn_until_there_are_residues_enough(records: list[Record]) -> None:
    drawn = drawn_chains(records, 80, seed=3)
    assert 80 <= sum(len(record.sequence) for record in drawn) < 80 + 55
    assert len({record.id for record in drawn}) == len(drawn)
    assert len(drawn_chains(records, 10**6, seed=3)) == 6


def test_a_sample_of_chains_keeps_the_order_of_the_set(records: list[Record]) -> None:
    sample, total = sample_chains(records, 3, seed=1)
    assert total == 6
    assert [record.id for record in sample] == sorted(record.id for record in sample)
    assert len({record.id for record in sample}) == 3
    assert [record.id for record in sample_chains(records, 3, seed=1)[0]] == [record.id for record in sample]
    assert sample_chains(iter(records), 6, seed=1) == (records, 6)


def test_groups_hold_all_records_in_order(chains: list[Record]) -> None:
    groups = list(grouped(chains, 5000))
    assert len(groups) > 1
    assert [record.id for group in groups for record in group] == [record.id for record in chains]
    assert all(sum(len(record.sequence) for record in group[:-1]) < 5000 for group in groups)
    assert list(grouped([])) == []
