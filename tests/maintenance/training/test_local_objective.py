"""The local objective: what is to be predicted, and the predictor's linear window."""

import numpy as np
import pytest
import torch

from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared
from foldmint_maintenance.training.local_objective import LocalPredictor, local_loss, targets


def test_contacts_are_the_nearest_neighbors_beyond_the_window(data: PreparedSet, records: list[Record]) -> None:
    truth = targets(data.windows(slice(None)), data.rows(slice(None)))
    ca = records[0].coordinates[:, 1].astype(np.float64)
    for residue in (0, 12, 29):
        apart = np.linalg.norm(ca - ca[residue], axis=1)
        nearest = np.argsort(apart)[:16]
        beyond = nearest[np.abs(nearest - residue) > 4][:6]
        distances = truth.contacts[residue].norm(dim=1)[truth.contacts_exist[residue]]
        assert len(beyond) > 0
        assert distances.numpy() == pytest.approx(apart[beyond], abs=1e-3)


def test_a_chain_too_short_for_contacts_has_none(records: list[Record]) -> None:
    record = records[0]
    short = Record("s", "AAAA", record.residue_index[:4], record.coordinates[:4])
    data = prepared([short])
    truth = targets(data.windows(slice(None)), data.rows(slice(None)))
    assert not truth.contacts_exist.any()
    assert truth.window_exists.sum() == 16


def test_the_predictor_keeps_distances(data: PreparedSet) -> None:
    predictor = LocalPredictor(out=8)
    predictor.fit(data.windows(slice(None)))
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    z[:, 6:] = 0  # beyond the three quarters that tell the window
    with torch.no_grad():
        window, contacts = predictor(z)
    assert window.shape == (2, 9, 3, 3)
    assert contacts.shape == (2, 6, 3)
    torch.testing.assert_close((window[0] - window[1]).norm(), (z[0] - z[1]).norm())


def test_the_predictor_refuses_too_few_windows(data: PreparedSet) -> None:
    with pytest.raises(ValueError, match="too few"):
        LocalPredictor(out=8).fit(data.windows(slice(0, 6)))


def test_the_loss_is_zero_for_the_truth_and_ignores_what_does_not_exist(data: PreparedSet) -> None:
    truth = targets(data.windows(slice(None)), data.rows(slice(None)))
    window = torch.where(truth.window_exists[..., None, None], truth.window, 99.0)
    contacts = torch.where(truth.contacts_exist[..., None], truth.contacts, 99.0)
    loss, error = local_loss(window, contacts, truth, contacts_weight=1.0)
    assert loss == pytest.approx(0, abs=1e-6)
    assert error == 0
    _, error = local_loss(window + torch.tensor([3.0, 0, 0]), contacts, truth, contacts_weight=1.0)
    assert error == pytest.approx(3, abs=1e-4)
