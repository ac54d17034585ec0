"""Which codes are dead, told from moving averages or from hits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from foldmint_maintenance.errors import OtherVersion
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.usage.statistics import CodeCounts
from foldmint_maintenance.vq import dead_code_reset
from foldmint_tokenizer.model import CodebookVersion
from foldmint_tokenizer.store.model_store import Store

Tell = Callable[[str], None]
Usage = Callable[[Store, str], CodeCounts]
"""Tells the counts of a version of a store's codebook."""


class DeadCodeReport(NamedTuple):
    """What was found dead, and the counts that it was told from."""

    dead_codes: dead_code_reset.DeadCodes
    counts: CodeCounts


def detect_dead_codes(
    store: Store,
    held: CodebookVersion,
    job: RepairJob,
    usage: Usage | None,
    tell: Tell,
) -> DeadCodeReport:
    """Which codes of a version are dead; all but the source of the counts is the same in all processes.

    usage: as in `repair`. Raises OtherVersion if it tells of another version, or of another number of codes.
    """
    config, own = job.config, held.codebook.N.double()
    if usage is None:
        counted = CodeCounts(own.numpy(), None, held.version, "moving averages of the codebook")
        # They remember about 1 / (1 - decay) steps.
        step, exposure = float(own.sum()), float(own.sum()) / (1 - config.decay) / len(own)
    else:
        counts = torch.zeros_like(own)
        source = ""
        if job.group.rank == 0:
            told = usage(store, held.version)
            if told.version is not None and told.version != held.version:
                raise OtherVersion(f"the counts are of codebook {told.version}, and {held.version} is active")
            counts, source = torch.from_numpy(np.asarray(told.counts, np.float64).copy()), told.source
        if counts.shape != own.shape:
            raise OtherVersion(f"there are counts of {len(counts)} codes, and the codebook has {len(own)}")
        counts = job.group.broadcast(counts.to(job.device)).cpu()
        counted = CodeCounts(counts.numpy(), int(counts.sum()), held.version, source)
        step, exposure = float(dead_code_reset.PUBLISHED_STEP), float(counts.sum()) / len(own)
    found = dead_code_reset.find_dead_codes(
        torch.from_numpy(counted.counts), step, exposure, config.dead_threshold, config.measure
    )
    tell(f"{int(found.dead.sum())} of {len(own)} codes are dead, {exposure:.1f} residues seen a code: {counted.source}")
    return DeadCodeReport(found, counted)
