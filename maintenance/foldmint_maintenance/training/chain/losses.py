"""Losses of decoded backbones: those of the ESM3 paper (appendix A.1.7), and two along the chain.

All are invariant to rotation and translation of prediction and truth. Each returns a weighted sum and its total weight,
so that several processes can divide by the weight of the whole batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foldmint_tokenizer.decoder import (
    DIRECTION_BINS,
    DIRECTION_LOGITS,
    DISTANCE_BINS,
    DISTANCE_LOGITS,
    LARGEST_ERROR,
    PAE_BINS,
    PLDDT_BINS,
    Rigids,
)

WeightedSum = tuple[Tensor, Tensor]
"""A weighted sum and its total weight."""

_FARTHEST_SQUARE = 25.0  # Å²
_LARGEST_PRODUCT_ERROR = 20.0
# Å; bounds of the 64 bins of distances between C-beta, and the place of C-beta in a residue's frame.
_NEAREST_BIN, _FARTHEST_BIN = 2.3125, 21.6875
_OFFSETS = (2, 4, 8, 16, 32, 64, 128)


class Chains(NamedTuple):
    """A batch of chains of one length.

    atoms: (n, length, 3, 3), Å; exists: (n, length) bool, which residues have a frame; follows: (n, length - 1) bool,
    whether neighbors in the sequence are bonded.
    """

    atoms: Tensor
    exists: Tensor
    follows: Tensor


def frames(atoms: Tensor) -> Rigids:
    """Frames (...) of residues (..., 3, 3), as `foldmint_tokenizer.frames` has them; finite for any atoms."""
    n, ca, c = atoms.unbind(-2)
    x = F.normalize(ca - c, dim=-1, eps=1e-4)
    beside = n - ca
    y = F.normalize(beside - x * (x * beside).sum(-1, keepdim=True), dim=-1, eps=1e-4)
    return Rigids(torch.stack([x, y, torch.linalg.cross(x, y)], -1), ca)


def _seen(rigids: Rigids, apart: Tensor) -> Tensor:
    """Vectors (..., 3) in the axes of frames (...)."""
    return torch.einsum("...ji,...j->...i", rigids.rotation, apart)


def local_motion_loss(guess: Rigids, truth: Rigids, chains: Chains) -> WeightedSum:
    """Error of the motion to the next residue: rotation (Frobenius norm) plus 0.3 times translation (Å)."""

    def steps(rigids: Rigids) -> Rigids:
        before = Rigids(rigids.rotation[:, :-1], rigids.origin[:, :-1])
        return Rigids(before.rotation.mT @ rigids.rotation[:, 1:], _seen(before, rigids.origin[:, 1:] - before.origin))

    made, real = steps(guess), steps(truth)
    turned = (made.rotation - real.rotation).square().sum((-1, -2))
    moved = (made.origin - real.origin).square().sum(-1)
    error = (turned + 1e-3).sqrt() + 0.3 * (moved + 1e-3).sqrt()
    counts = (chains.exists[:, 1:] & chains.exists[:, :-1] & chains.follows).float()
    return (error * counts).sum(), counts.sum()


def displacement_loss(guess: Rigids, truth: Rigids, chains: Chains) -> WeightedSum:
    """Long-range displacement loss: positions of the CA 2, 4, 8, … 128 residues away, in each residue's frame.

    A mean of log(error² + 0.01) over offsets in both directions, each weighted by the inverse of the offset: an error
    of one motion displaces all that follows, so that long offsets would outweigh short ones, which are learned first.
    """
    total, weight = guess.origin.new_zeros(()), guess.origin.new_zeros(())
    for offset in _OFFSETS:
        if offset >= guess.origin.shape[1]:
            break
        near, far = slice(None, -offset), slice(offset, None)
        counts = (chains.exists[:, near] & chains.exists[:, far]).float() / offset
        for own, other in ((near, far), (far, near)):
            apart = [
                _seen(Rigids(r.rotation[:, own], r.origin[:, own]), r.origin[:, other] - r.origin[:, own])
                for r in (guess, truth)
            ]
            total = total + (torch.log((apart[0] - apart[1]).square().sum(-1) + 0.01) * counts).sum()
            weight = weight + counts.sum()
    return total, weight


def distance_loss(guess: Tensor, chains: Chains, rows: Tensor) -> WeightedSum:
    """Squared errors of the distances between backbone atoms, clamped at 25 Å².

    guess: atoms (n, length, 3, 3); rows: residues whose distances to all others are compared.
    """
    made = _distances(guess[:, rows], guess)
    real = _distances(chains.atoms[:, rows], chains.atoms)
    exists = chains.exists.repeat_interleave(3, 1)
    pairs = (exists[:, None] & chains.exists[:, rows].repeat_interleave(3, 1)[..., None]).float()
    return ((made - real).square().clamp_max(_FARTHEST_SQUARE) * pairs).sum(), pairs.sum()


def _distances(first: Tensor, second: Tensor) -> Tensor:
    return _apart(first.flatten(1, 2), second.flatten(1, 2))


def _apart(first: Tensor, second: Tensor) -> Tensor:
    """Distances between points (n, a, 3) and (n, b, 3), without matrix products, which cancel far from the origin."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def direction_vectors(atoms: Tensor) -> Tensor:
    """Six vectors a residue (n, length, 6, 3): N to CA, CA to C, C to the next N, and three normals of its bonds."""
    n, ca, c = atoms.unbind(-2)
    between = n[:, 1:] - c[:, :-1]
    edge = torch.zeros_like(n[:, :1])
    onward, back = torch.cat([between, edge], 1), torch.cat([edge, between], 1)
    first, second = ca - n, c - ca
    cross = torch.linalg.cross
    return torch.stack([first, second, onward, -cross(first, second), cross(back, first), cross(second, onward)], -2)


def direction_loss(guess: Tensor, chains: Chains, rows: Tensor) -> WeightedSum:
    """Squared errors of the dot products of all direction vectors, clamped at 20."""
    made, real = direction_vectors(guess), direction_vectors(chains.atoms)
    # Vectors to a neighbor are meaningless without a bond to it.
    whole = chains.exists & F.pad(chains.follows, (0, 1), value=True) & F.pad(chains.follows, (1, 0), value=True)
    dots = [torch.einsum("nriv,nljv->nrilj", v[:, rows], v) for v in (made, real)]
    pairs = (whole[:, rows, None] & whole[:, None]).float()[:, :, None, :, None].expand_as(dots[0])
    return ((dots[0] - dots[1]).square().clamp_max(_LARGEST_PRODUCT_ERROR) * pairs).sum(), pairs.sum()


def binned_loss(logits: Tensor, chains: Chains, rows: Tensor) -> WeightedSum:
    """Cross-entropy of binned distances of C-beta, and of binned dot products of three unit vectors of each pair.

    logits: (n, rows, length, 224). The vectors are CA to C, CA to N and their normal; six products of a pair: each with
    its like, then first with second, first with third, second with third.
    """
    pairs = (chains.exists[:, rows, None] & chains.exists[:, None]).float()
    beta = beta_carbons(chains.atoms)
    bounds = torch.linspace(_NEAREST_BIN, _FARTHEST_BIN, DISTANCE_BINS - 1, device=beta.device)
    distance = torch.bucketize(_apart(beta[:, rows], beta), bounds)
    n, ca, c = chains.atoms.unbind(-2)
    first, second = F.normalize(c - ca, dim=-1, eps=1e-4), F.normalize(n - ca, dim=-1, eps=1e-4)
    unit = torch.stack([first, second, F.normalize(torch.linalg.cross(first, second), dim=-1, eps=1e-4)], -2)
    row, column = unit[:, rows, None], unit[:, None]
    dots = [(row[..., i, :] * column[..., j, :]).sum(-1) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    direction = ((torch.stack(dots, -1) + 1) / 2 * DIRECTION_BINS).long().clamp(0, DIRECTION_BINS - 1)
    total = _cross_entropy(logits[..., DISTANCE_LOGITS], distance)
    split = logits[..., DIRECTION_LOGITS].reshape(*direction.shape, DIRECTION_BINS)
    total = total + _cross_entropy(split, direction).mean(-1)
    return (total * pairs).sum(), pairs.sum()


def beta_carbons(atoms: Tensor) -> Tensor:
    """Position of C-beta (n, length, 3), Å, as in an alanine of ideal geometry."""
    n, ca, c = atoms.unbind(-2)
    first, second = ca - n, c - ca
    place: Tensor = ca - 0.58273431 * torch.linalg.cross(first, second) + 0.56802827 * first - 0.54067466 * second
    return place


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    loss = F.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), reduction="none")
    return loss.view(target.shape)


def plddt_loss(logits: Tensor, guess: Tensor, chains: Chains) -> WeightedSum:
    """Cross-entropy of the binned lDDT-CA of each residue; logits (n, length, 50); guess: atoms (n, length, 3, 3)."""
    with torch.no_grad():
        made, real = (_apart(atoms[:, :, 1], atoms[:, :, 1]) for atoms in (guess, chains.atoms))
        others = ~torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        near = ((real < 15) & chains.exists[:, None] & others).float()
        kept = torch.stack([((made - real).abs() < bound).float() for bound in (0.5, 1.0, 2.0, 4.0)]).mean(0)
        lddt = (kept * near).sum(-1) / near.sum(-1).clamp_min(1)
        target = (lddt * PLDDT_BINS).long().clamp(0, PLDDT_BINS - 1)
    counts = chains.exists.float()
    return (_cross_entropy(logits, target) * counts).sum(), counts.sum()


def pae_loss(logits: Tensor, guess: Rigids, truth: Rigids, chains: Chains, rows: Tensor) -> WeightedSum:
    """Cross-entropy of binned aligned errors: the error of each CA in the frames of the rows.

    logits: (n, rows, length, 64).
    """
    with torch.no_grad():
        seen = [
            torch.einsum("nrji,nrlj->nrli", r.rotation[:, rows], r.origin[:, None] - r.origin[:, rows, None])
            for r in (guess, truth)
        ]
        bounds = torch.linspace(0, LARGEST_ERROR, PAE_BINS - 1, device=logits.device)
        target = torch.bucketize((seen[0] - seen[1]).norm(dim=-1), bounds)
        # The first bin holds errors of 0; its upper bound is the second boundary.
        target = (target - 1).clamp_min(0)
    pairs = (chains.exists[:, rows, None] & chains.exists[:, None]).float()
    return (_cross_entropy(logits, target) * pairs).sum(), pairs.sum()
