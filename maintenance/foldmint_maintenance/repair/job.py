"""The repair of a codebook: dead codes found, moved, settled; proved by gates; published as a new version.

Every process of a group does the same and ends with the same bits; rank 0 holds the lock, publishes and activates.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.errors import GroupBroken, TrainingStopped
from foldmint_maintenance.evaluation.fragment_metrics import WindowMeans
from foldmint_maintenance.repair import decoder_finetune, gates, rollout
from foldmint_maintenance.repair.canary import Canary, canary_of
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.dead_codes import DeadCodeReport, Usage, detect_dead_codes
from foldmint_maintenance.repair.gates import Gate
from foldmint_maintenance.repair.inputs import DataSplit, RepairInputs, origin, prepare_inputs
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.repair.run_record import NO_PROGRESS, Log, RunProgress
from foldmint_maintenance.usage.statistics import figures
from foldmint_maintenance.vq import dead_code_reset
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.model import CodebookVersion, DecoderRows, Model
from foldmint_tokenizer.motion.motion_decoder import MotionDecoder
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store


def repair(job: RepairJob, usage: Usage | None, log: Log, progress: RunProgress = NO_PROGRESS) -> RepairResult:
    """Repair a store's active codebook.

    usage: asked by rank 0 for the counts of a store's version; None for the codebook's own moving averages. log: called
    with lines of text. progress: called with phases and results, however it ends. A gate that fails publishes nothing;
    where nothing is dead, and all codes are not to be fine-tuned, nothing changes. SIGTERM and SIGINT end it with
    TrainingStopped. Whenever it ends, even by SIGKILL, the store is whole.

    Raises StoreLocked, ModelError, InvalidSet, OtherVersion if the counts are another version's, ActivationFailed, and
    GroupBroken if another process has ended. In processes other than rank 0 the result says nothing of publishing.
    """
    store = Store(job.store)
    store.about()  # a lock would make a folder of a name that was mistyped
    held: AbstractContextManager[StoreLock | None] = nullcontext()
    if job.group.rank == 0 and not job.dry_run:
        held = StoreLock(store.files, ttl=job.lock_seconds)
    with _stopped_by_signals(), held as lock, _raise_if_broken(job):
        job.group.barrier()
        model = store.load()
        log(f"{model.name}, codebook {model.codebook.version}")
        dead = detect_dead_codes(store, model.codebook, job, usage, log)
        done = _repair_codebook(model, dead, job, log, progress)
        if isinstance(done, _Candidate):
            progress.report_result(done.result)
            done = _publish(store, model, done, job, lock, log, progress)
        progress.report_result(done)
        return done


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A repaired codebook that is not published yet. rows: its decoder rows, None without a decoder or chains."""

    version: CodebookVersion
    rows: DecoderRows | None
    canary: Canary
    result: RepairResult


class _Figures(NamedTuple):
    """What the old and the new codebook do to the vectors of both splits."""

    train_before: gates.QuantizationFigures
    train_after: gates.QuantizationFigures
    gate_before: gates.QuantizationFigures
    gate_after: gates.QuantizationFigures


def _repair_codebook(
    model: Model, report: DeadCodeReport, job: RepairJob, log: Log, progress: RunProgress
) -> "RepairResult | _Candidate":
    """A repaired codebook, or the result of a repair that has nothing to do or was not to do it."""
    config, version = job.config, model.codebook.version
    (_, dead, exposure), notes = report.dead_codes, list(report.notes)
    codes = tuple(torch.nonzero(dead).flatten().tolist())
    statistics: dict[str, Any] = {"usage": figures(report.counts).as_json()}
    if report.evidence is not None:
        statistics["evidence"] = report.statistics()
    idle = RepairResult(
        len(codes), (), False, version, None, exposure=exposure, statistics=statistics, notes=tuple(notes)
    )
    progress.report_result(idle)
    if not codes and config.scope == "repair":
        return replace(idle, notes=(*notes, "nothing is to be repaired"))
    if job.dry_run:
        return replace(idle, replaced=codes, notes=(*notes, f"a dry run: {len(codes)} codes would be replaced"))
    inputs = prepare_inputs(model, job, log, progress)
    return _candidate(model, dead, inputs, replace(idle, replaced=codes, parent=version), job, log, progress)


def _candidate(
    model: Model,
    dead: Tensor,
    inputs: RepairInputs,
    begun: RepairResult,
    job: RepairJob,
    log: Log,
    progress: RunProgress,
) -> _Candidate:
    """Reset the dead codes, retrain their decoder rows, and measure what the gates ask for."""
    config, old = job.config, model.codebook
    codebook = _reset(old.codebook, dead, inputs.train.z, job, log, progress)
    measured = _quantize(old.codebook, codebook, inputs, progress)
    windows = _windows(old, codebook, dead, inputs.train, measured.train_after.tokens, whole=config.scope == "finetune")
    version = CodebookVersion("new", "", codebook, windows, old.decoder_rows)
    passed = gates.codebook_gates(measured.gate_before, measured.gate_after, config.limits)
    if config.scope == "repair":
        passed["live_rows"] = gates.live_rows_gate(old.codebook.embeddings, codebook.embeddings, dead)
    statistics, notes, rows = dict(begun.statistics), list(begun.notes), None
    reads_vectors = isinstance(model.decoder, MotionDecoder)
    if model.decoder is not None and (inputs.gate if reads_vectors else inputs.train).data is not None:
        # A decoder that reads the codes' vectors has no rows: moving a code moves its meaning with it.
        if not reads_vectors and inputs.train.data is not None:
            rows = _finetune_rows(model, codebook, dead, inputs.train.data, measured, job, log, progress)
        log("decoding the gates' chains")
        tokens = measured.gate_before.tokens, measured.gate_after.tokens
        decoded = _reconstructions(model, version, rows, inputs.gate, tokens, config, progress)
        passed |= gates.reconstruction_gates(decoded["before"], decoded["after"], config.limits)
        statistics["reconstruction"] = {name: each._asdict() for name, each in decoded.items()}
    elif model.decoder is not None and not reads_vectors:
        notes.append("there are no chains to retrain the decoder's rows on: it reads replaced codes as before")
    statistics |= _statistics(measured, begun.replaced)
    hits = [np.bincount(each.tokens, minlength=len(dead)) for each in (measured.gate_before, measured.gate_after)]
    result = replace(
        begun,
        gates=passed,
        churn=passed["churn"].after,
        statistics=statistics,
        about=origin(job, inputs),
        notes=tuple(notes),
        codebook=codebook,
        hits=(hits[0], hits[1]),
    )
    return _Candidate(version, rows, canary_of(model, version), result)


def _reset(codebook: Codebook, dead: Tensor, z: Tensor, job: RepairJob, log: Log, progress: RunProgress) -> Codebook:
    """The codebook with its dead codes (codes,) bool reset among z (rows, out); fine-tuned if the scope says so."""
    config = job.config
    log(f"moving {int(dead.sum())} codes among {len(z)} vectors")
    advance = progress.phase("moving codes", int(dead.sum()))
    codebook = dead_code_reset.reset_dead_codes(
        codebook, dead, z, config.strategy, config.rounds, config.seed, job.group, report=advance
    )
    if config.scope == "finetune":
        log(f"{config.finetune_steps} steps of moving averages")
        steps = (config.finetune_steps, config.finetune_batch, config.decay, config.seed)
        advance = progress.phase("moving averages", config.finetune_steps)
        codebook = dead_code_reset.finetune(codebook, z, *steps, job.group, report=advance)
    return codebook


def _quantize(old: Codebook, new: Codebook, inputs: RepairInputs, progress: RunProgress) -> _Figures:
    pairs = [(z, each.embeddings) for z in (inputs.train.z, inputs.gate.z) for each in (old, new)]
    advance = progress.phase("measuring vectors", sum(len(z) for z, _ in pairs))
    found = []
    for z, embeddings in pairs:
        found.append(gates.quantization_figures(z, embeddings))
        advance(len(z))
    return _Figures(*found)


def _finetune_rows(
    model: Model,
    codebook: Codebook,
    dead: Tensor,
    data: PreparedSet,
    measured: _Figures,
    job: RepairJob,
    log: Log,
    progress: RunProgress,
) -> DecoderRows:
    """The decoder's rows of the codes that moved, trained on a split's chains."""
    trained = dead if job.config.scope == "repair" else torch.ones_like(dead)
    log(f"retraining the decoder's rows of {int(trained.sum())} codes")
    before, after = (
        gates.whole_tokens(data, each.tokens, gates.frameless_code(model, version.embeddings))
        for each, version in ((measured.train_before, model.codebook.codebook), (measured.train_after, codebook))
    )
    advance = progress.phase("training rows", job.config.rows.steps)
    return decoder_finetune.finetune_rows(
        *(model, data, dead, before, after, job.config.rows, job.group, job.device),
        trained=trained,
        report=lambda _: advance(1),
    )


def _statistics(measured: _Figures, replaced: tuple[int, ...]) -> dict[str, Any]:
    """Figures of the gates' split, for the report and the manifest."""
    return {
        "gate_before": _as_json(measured.gate_before),
        "gate_after": _as_json(measured.gate_after),
        "replaced_codes_hit": float(np.isin(list(replaced), measured.gate_after.tokens).mean()) if replaced else None,
    }


def _publish(
    store: Store,
    model: Model,
    candidate: _Candidate,
    job: RepairJob,
    lock: StoreLock | None,
    log: Log,
    progress: RunProgress,
) -> RepairResult:
    """Publish and activate what has passed its gates."""
    result = candidate.result
    for name, gate in result.gates.items():
        log(f"gate {name}: {gate.before:.6g} -> {gate.after:.6g}, limit {gate.limit:.6g}, {_word(gate)}")
    if not result.passed:
        failed = [name for name, gate in result.gates.items() if not gate.passed]
        return replace(result, notes=(*result.notes, f"nothing is published: {', '.join(failed)} did not pass"))
    # From here on rank 0 is on its own: no other can take away what it has begun.
    job.group.barrier()
    if lock is None:
        return result
    lock.check()
    fields = result.as_json()
    about = result.about | {name: fields[name] for name in ("dead", "replaced", "gates", "churn", "statistics")}
    version = store.publish(
        candidate.version.codebook,
        parent=model.codebook.version,
        windows=candidate.version.windows,
        decoder_rows=candidate.rows,
        about=about | {"canary": candidate.canary.as_json()},
    ).version
    log(f"published codebook {version}")
    result = replace(result, published=True, version=version)
    progress.report_result(result)
    rollout.activate(
        *(store, lock, job.activate, version, candidate.canary, log), outcome=progress.report_server, **job.connection
    )
    return replace(result, activated=True)


def _windows(
    old: CodebookVersion, codebook: Codebook, dead: Tensor, part: DataSplit, tokens: NDArray[np.int64], *, whole: bool
) -> Tensor | None:
    """Mean windows (codes, 9, 3, 3), Å: those of moved codes anew, NaN where they are not known."""
    if old.windows is None:
        return None
    moved = torch.ones_like(dead) if whole else dead
    if part.data is None:
        return torch.where(moved[:, None, None, None], torch.full_like(old.windows, torch.nan), old.windows)
    means = WindowMeans(len(codebook.N))
    for start in range(0, len(tokens), 65_536):
        some = part.data.windows(slice(start, start + 65_536))
        full = some.exists.all(1)
        means.add(some.positions[full], tokens[start : start + 65_536][full])
    return torch.where(moved[:, None, None, None], torch.from_numpy(means.windows()), old.windows)


def _reconstructions(
    model: Model,
    made: CodebookVersion,
    rows: DecoderRows | None,
    part: DataSplit,
    tokens: tuple[NDArray[np.int64], NDArray[np.int64]],
    config: RepairConfig,
    progress: RunProgress,
) -> dict[str, gates.ReconstructionFigures]:
    """Of the gates' chains: before; after; and, where there are rows, after, had they not been retrained."""
    assert part.data is not None  # noqa: S101 (for types; there are chains where there are rows)
    ids = [
        gates.whole_tokens(part.data, own, gates.frameless_code(model, held.embeddings))
        for own, held in zip(tokens, (model.codebook.codebook, made.codebook), strict=True)
    ]
    versions = {
        "before": (model.codebook, ids[0]),
        "after": (made if rows is None else replace(made, decoder_rows=rows), ids[1]),
    }
    if rows is not None:
        versions["without_rows"] = (made, ids[1])
    lengths = [len(record.sequence) for record in part.records]
    whole = sum(length for length in lengths if length <= config.gate_decoded) * len(versions)
    advance = progress.phase("decoding residues", whole)
    return {
        name: gates.reconstruct(model, version, part.records, part.data, own, config.gate_decoded, advance)
        for name, (version, own) in versions.items()
    }


def _as_json(use: gates.QuantizationFigures) -> dict[str, float]:
    return {
        "quantization_error": use.error,
        "utilization": use.utilization,
        "perplexity": use.perplexity,
        "residues": len(use.tokens),
    }


def _word(gate: Gate) -> str:
    return "passed" if gate.passed else "NOT passed"


@contextmanager
def _raise_if_broken(job: RepairJob) -> Iterator[None]:
    """Raise GroupBroken for what torch.distributed raises when another process is gone: a plain RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if job.group.size == 1:
            raise
        raise GroupBroken(f"another process of the group has ended; nothing was published ({error})") from error


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise TrainingStopped, so that a lock is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (as signal.signal calls it)
        raise TrainingStopped(f"stopped by {signal.Signals(number).name}; what was published before stays whole")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
