"""Which codes are dead, by moving averages or by hits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foldmint.usage import Evidence, evidence
from foldmint_maintenance.errors import OtherVersion
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.run_record import Log
from foldmint_maintenance.usage.statistics import CodeCounts
from foldmint_maintenance.vq import dead_code_reset
from foldmint_tokenizer.model import CodebookVersion
from foldmint_tokenizer.store.model_store import Store

Usage = Callable[[Store, str], CodeCounts]
"""Returns the counts of a version of a store's codebook."""


class DeadCodeReport(NamedTuple):
    """What was found dead, and the counts that show it.

    evidence: what absent hits mean in these counts; None of the codebook's own moving averages. undecided: codes
    without a hit that are not called dead, because too few hits were to be expected. notes: in words.
    """

    dead_codes: dead_code_reset.DeadCodes
    counts: CodeCounts
    evidence: Evidence | None = None
    undecided: int = 0
    notes: tuple[str, ...] = ()

    def statistics(self) -> dict[str, float]:
        """The evidence, for json.dumps; empty if there is none."""
        if self.evidence is None:
            return {}
        codes = len(self.counts.counts)
        return {
            "residues_a_code": self.dead_codes.exposure,
            "design_effect": self.evidence.design_effect,
            "independent_residues_a_code": self.evidence.independent / codes,
            "unhit_by_chance": self.evidence.unhit_by_chance,
            "judged": int(self.evidence.judged.sum()),
            "undecided": self.undecided,
        }


def detect_dead_codes(
    store: Store,
    held: CodebookVersion,
    job: RepairJob,
    usage: Usage | None,
    log: Log,
) -> DeadCodeReport:
    """Which codes of a version are dead; all but the source of the counts is the same in all processes.

    usage: as in `repair`. Unless the job is forced, codes are called dead only where `foldmint.usage.evidence` allows
    it, and none is below the least exposure. Raises OtherVersion if the counts are of another version, or of another
    number of codes.
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
            given = usage(store, held.version)
            if given.version is not None and given.version != held.version:
                raise OtherVersion(f"the counts are of codebook {given.version}, and {held.version} is active")
            counts, source = torch.from_numpy(np.asarray(given.counts, np.float64).copy()), given.source
        if counts.shape != own.shape:
            raise OtherVersion(f"there are counts of {len(counts)} codes, and the codebook has {len(own)}")
        counts = job.group.broadcast(counts.to(job.device)).cpu()
        counted = CodeCounts(counts.numpy(), int(counts.sum()), held.version, source)
        step, exposure = float(dead_code_reset.PUBLISHED_STEP), float(counts.sum()) / len(own)
    found = dead_code_reset.find_dead_codes(
        torch.from_numpy(counted.counts), step, exposure, config.dead_threshold, config.measure
    )
    report = _judge(DeadCodeReport(found, counted), own, job)
    number = int(report.dead_codes.dead.sum())
    log(f"{number} of {len(own)} codes are dead, {exposure:.1f} residues seen a code: {counted.source}")
    for note in report.notes:
        log(note)
    return report


def _judge(report: DeadCodeReport, own: Tensor, job: RepairJob) -> DeadCodeReport:
    """The report without codes that are not proved dead. own: (codes,), the codebook's N."""
    config, (values, dead, exposure), counts = job.config, report.dead_codes, report.counts
    notes = list[str]()
    if exposure < config.min_exposure and not config.force:
        notes.append(
            f"{exposure:.2f} residues were seen a code, and {config.min_exposure:g} are needed: no code is called dead"
        )
        dead = torch.zeros_like(dead)
    if counts.residues is None:
        return report._replace(dead_codes=report.dead_codes._replace(dead=dead), notes=tuple(notes))
    living = own if config.measure == "count" else own / own.sum().clamp_min(torch.finfo(own.dtype).tiny)
    found = evidence(counts.counts, living.numpy(), config.dead_threshold)
    unproved = dead & torch.from_numpy((counts.counts == 0) & ~found.judged)
    undecided = int(unproved.sum())
    if undecided:
        independent = found.independent / len(own)
        notes.append(
            f"{undecided} codes without a hit are too rare to be called dead: {exposure:.1f} residues a code were "
            f"seen, which count as {independent:.1f} independent ones (design effect {found.design_effect:.1f}: "
            "repeated and similar structures are not new evidence); by chance alone, "
            f"{found.unhit_by_chance:.0f} living codes would have no hit"
        )
    if undecided and config.force:
        notes.append("--force: they are called dead all the same")
    elif undecided:
        dead = dead & ~unproved
    return report._replace(
        dead_codes=dead_code_reset.DeadCodes(values, dead, exposure),
        evidence=found,
        undecided=0 if config.force else undecided,
        notes=tuple(notes),
    )
