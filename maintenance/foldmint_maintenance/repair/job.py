"""The repair of a codebook: dead codes found, moved, settled; proved by gates; published as a new version.

Every process of a group does the same and ends with the same bits; rank 0 holds the lock, publishes and activates.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance.errors import GroupBroken, TrainingStopped
from foldmint_maintenance.evaluation.fragment_metrics import WindowMeans
from foldmint_maintenance.repair import decoder_finetune, gates, rollout
from foldmint_maintenance.repair.canary import Canary, canary_of
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.dead_codes import Measured, Usage, measured
from foldmint_maintenance.repair.gates import Gate
from foldmint_maintenance.repair.inputs import Material, Part, material
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.store.lock import StoreLock
from foldmint_maintenance.usage.statistics import figures
from foldmint_maintenance.vq import dead_code_reset
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.model import CodebookVersion, DecoderRows, Model
from foldmint_tokenizer.motion_decoder import MotionDecoder
from foldmint_tokenizer.store import Store

Tell = Callable[[str], None]


def repair(job: RepairJob, usage: Usage | None, tell: Tell) -> RepairResult:
    """Repair a store's active codebook.

    usage: asked by rank 0 for the counts of a store's version; None for the codebook's own moving averages. tell: told
    what goes on. A gate that fails publishes nothing; where nothing is dead, and all codes are not to be fine-tuned,
    nothing changes. SIGTERM and SIGINT end it with TrainingStopped. Whenever it ends, even by SIGKILL, the store is
    whole.

    Raises StoreLocked, ModelError, InvalidSet, OtherVersion if the counts are another version's, ActivationFailed, and
    GroupBroken if another process has ended. In processes other than rank 0 the result says nothing of publishing.
    """
    store = Store(job.store)
    held: AbstractContextManager[StoreLock | None] = nullcontext()
    if job.group.rank == 0 and not job.dry_run:
        held = StoreLock(store.files, ttl=job.lock_seconds)
    with _stopped_by_signals(), held as lock, _told_if_broken(job):
        job.group.wait()
        model = store.load()
        tell(f"{model.name}, codebook {model.codebook.version}")
        dead = measured(store, model.codebook, job, usage, tell)
        done = _repaired(model, dead, job, tell)
        if isinstance(done, RepairResult):
            return done
        return _published(store, model, done, job, lock, tell)


@dataclass(frozen=True, eq=False)
class _Made:
    """A repaired codebook that is not published yet."""

    version: CodebookVersion
    rows: DecoderRows | None
    canary: Canary
    result: RepairResult


def _repaired(model: Model, measured: Measured, job: RepairJob, tell: Tell) -> "RepairResult | _Made":
    """A repaired codebook, or the result of a repair that has nothing to do or was not to do it."""
    config, version = job.config, model.codebook.version
    (_, dead, exposure), notes = measured.found, list[str]()
    if exposure < config.min_exposure:
        notes.append(
            f"{exposure:.2f} residues were seen a code, and {config.min_exposure:g} are asked for: "
            "no code is called dead"
        )
        dead = torch.zeros_like(dead)
    codes = tuple(torch.nonzero(dead).flatten().tolist())
    statistics = {"usage": figures(measured.counted).as_json()}
    idle = RepairResult(
        len(codes), (), False, version, None, exposure=exposure, statistics=statistics, notes=tuple(notes)
    )
    if not codes and config.scope == "repair":
        return replace(idle, notes=(*notes, "nothing is to be repaired"))
    if job.dry_run:
        return replace(idle, replaced=codes, notes=(*notes, "a dry run: nothing was changed"))
    given = material(model, job, tell)
    return _moved(model, dead, given, replace(idle, replaced=codes, parent=version), job, tell)


def _moved(model: Model, dead: Tensor, given: Material, begun: RepairResult, job: RepairJob, tell: Tell) -> _Made:
    config, old = job.config, model.codebook
    z = given.train.z
    tell(f"moving {int(dead.sum())} codes among {len(z)} vectors")
    codebook = dead_code_reset.replaced(old.codebook, dead, z, config.strategy, config.rounds, config.seed, job.group)
    if config.scope == "finetune":
        tell(f"{config.finetune_steps} steps of moving averages")
        steps = (config.finetune_steps, config.finetune_batch, config.decay, config.seed)
        codebook = dead_code_reset.finetuned(codebook, z, *steps, job.group)
    before = gates.use_of(z, old.codebook.embeddings), gates.use_of(given.gate.z, old.codebook.embeddings)
    after = gates.use_of(z, codebook.embeddings), gates.use_of(given.gate.z, codebook.embeddings)
    windows = _windows(old, codebook, dead, given.train, after[0].tokens, whole=config.scope == "finetune")
    made = CodebookVersion("new", "", codebook, windows, old.decoder_rows)
    passed = gates.codebook_gates(before[1], after[1], config.limits)
    if config.scope == "repair":
        passed["live_rows"] = gates.live_rows_gate(old.codebook.embeddings, codebook.embeddings, dead)
    notes = list(begun.notes)
    rows = None
    if isinstance(model.decoder, MotionDecoder) and given.gate.data is not None:
        # It reads the codes' vectors: whoever moves a code moves its meaning with it.
        tell("decoding the gates' chains")
        decoded = _reconstructions(model, made, None, given.gate, (before[1].tokens, after[1].tokens), config)
        passed |= gates.reconstruction_gates(decoded["before"], decoded["after"], config.limits)
        begun.statistics["reconstruction"] = {name: each._asdict() for name, each in decoded.items()}
    elif isinstance(model.decoder, Decoder) and given.train.data is not None:
        trained = dead if config.scope == "repair" else torch.ones_like(dead)
        tell(f"retraining the decoder's rows of {int(trained.sum())} codes")
        was, now = (
            gates.whole_tokens(given.train.data, use.tokens, gates.frameless_code(model, held.embeddings))
            for use, held in ((before[0], old.codebook), (after[0], codebook))
        )
        rows = decoder_finetune.retrained(
            model, given.train.data, dead, was, now, config.rows, job.group, job.device, trained=trained
        )
        tell("decoding the gates' chains")
        decoded = _reconstructions(model, made, rows, given.gate, (before[1].tokens, after[1].tokens), config)
        passed |= gates.reconstruction_gates(decoded["before"], decoded["after"], config.limits)
        begun.statistics["reconstruction"] = {name: each._asdict() for name, each in decoded.items()}
    elif isinstance(model.decoder, Decoder):
        notes.append("there are no chains to retrain the decoder's rows on: it reads replaced codes as before")
    canary = canary_of(model, made)
    statistics = begun.statistics | {
        "gate_before": _told(before[1]),
        "gate_after": _told(after[1]),
        "replaced_codes_hit": float(np.isin(list(begun.replaced), after[1].tokens).mean()) if begun.replaced else None,
    }
    about = {
        "made_by": "repair",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "foldmint": installed_version("foldmint"),
        "scope": config.scope,
        "strategy": config.strategy,
        "dead_threshold": config.dead_threshold,
        "measure": config.measure,
        "seed": config.seed,
        "data": given.about,
        "processes": job.group.size,
    }
    result = replace(
        begun, gates=passed, churn=passed["churn"].after, statistics=statistics, about=about, notes=tuple(notes)
    )
    hits = tuple(np.bincount(use.tokens, minlength=len(dead)) for use in (before[1], after[1]))
    return _Made(made, rows, canary, replace(result, codebook=codebook, hits=(hits[0], hits[1])))


def _published(
    store: Store, model: Model, made: _Made, job: RepairJob, lock: StoreLock | None, tell: Tell
) -> RepairResult:
    """Publish and activate what has passed its gates."""
    result = made.result
    for name, gate in result.gates.items():
        tell(f"gate {name}: {gate.before:.6g} -> {gate.after:.6g}, limit {gate.limit:.6g}, {_word(gate)}")
    if not result.passed:
        failed = [name for name, gate in result.gates.items() if not gate.passed]
        return replace(result, notes=(*result.notes, f"nothing is published: {', '.join(failed)} did not pass"))
    # From here on rank 0 is on its own: no other can take away what it has begun.
    job.group.wait()
    if lock is None:
        return result
    lock.check()
    told = result.as_json()
    about = result.about | {name: told[name] for name in ("dead", "replaced", "gates", "churn", "statistics")}
    version = store.publish(
        made.version.codebook,
        parent=model.codebook.version,
        windows=made.version.windows,
        decoder_rows=made.rows,
        about=about | {"canary": made.canary.as_json()},
    ).version
    tell(f"published codebook {version}")
    rollout.activate(job.activate, version, made.canary, tell, **job.connection)
    lock.check()
    store.activate(version)
    tell(f"codebook {version} is active in the store")
    return replace(result, published=True, activated=True, version=version)


def _windows(
    old: CodebookVersion, codebook: Codebook, dead: Tensor, part: Part, tokens: NDArray[np.int64], *, whole: bool
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
    part: Part,
    tokens: tuple[NDArray[np.int64], NDArray[np.int64]],
    config: RepairConfig,
) -> dict[str, gates.Reconstructed]:
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
    return {
        name: gates.reconstructed(model, version, part.records, part.data, own, config.gate_decoded)
        for name, (version, own) in versions.items()
    }


def _told(use: gates.Use) -> dict[str, float]:
    return {
        "quantization_error": use.error,
        "utilization": use.utilization,
        "perplexity": use.perplexity,
        "residues": len(use.tokens),
    }


def _word(gate: Gate) -> str:
    return "passed" if gate.passed else "NOT passed"


@contextmanager
def _told_if_broken(job: RepairJob) -> Iterator[None]:
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
