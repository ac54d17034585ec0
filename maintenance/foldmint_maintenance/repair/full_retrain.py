"""Scope full of a repair: encoder, codebook and decoder go on training, and become a new model.

OUT/training/   the job of `train`, which resumes
OUT/model/      the new store, there only if the gates passed

The vectors of another encoder are other vectors: nothing of the old codebook can be kept, and no server can swap to it;
it is served by being started with it.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.errors import CheckpointMismatch, InvalidRecipe
from foldmint_maintenance.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from foldmint_maintenance.repair import gates
from foldmint_maintenance.repair.config import RepairJob
from foldmint_maintenance.repair.dead_codes import Usage, detect_dead_codes
from foldmint_maintenance.repair.gates import Gate, GateLimits
from foldmint_maintenance.repair.result import RepairResult
from foldmint_maintenance.repair.run_record import NO_PROGRESS, Advance, Log, RunProgress
from foldmint_maintenance.training.config import (
    ChainConfig,
    KMeansConfig,
    MotionConfig,
    MotionDecoderSizes,
    MotionDecoderTraining,
)
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.recipe import Recipe
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import Store


def retrained(
    job: RepairJob,
    out: Path,
    steps: int,
    usage: Usage | None,
    log: Log,
    progress: RunProgress = NO_PROGRESS,
    *,
    batch: int = 1024,
    crop: int = 256,
) -> RepairResult:
    """Train a store's model on, dead codes being put elsewhere on the way, and prove that it got no worse.

    steps: of each of the two stages, of `batch` residues: encoder, codebook and decoder, then the decoder alone, in
    chains cut to `crop`. If the codes encode motions: the encoder alone, then new codes on the same scale of vectors,
    then a new decoder if the model has one. Raises InvalidRecipe if the model has neither such codes nor a decoder, or
    if there is no set for the gates alone; CheckpointMismatch if OUT holds a finished model.
    """
    if job.data is None or job.gate_data is None:
        raise InvalidRecipe("scope full needs a set to train on, and another for the gates (--gate-data)")
    finished = out / "model"
    if finished.exists():
        raise CheckpointMismatch(f"{finished} is there already: choose another folder, or remove it")
    store = Store(job.store)
    model = store.load()
    recipe = _recipe(model, steps, batch, crop, job.config.seed)
    dead = detect_dead_codes(store, model.codebook, job, usage, log)
    result = RepairResult(
        int(dead.dead_codes.dead.sum()), (), False, model.codebook.version, None, exposure=dead.dead_codes.exposure
    )
    result = replace(result, notes=dead.notes)
    progress.report_result(result)
    if job.dry_run:
        return replace(result, notes=(*result.notes, "a dry run: a new model would be trained"))
    training = TrainJob(job.data, out / "training", recipe, Path(job.store), device=job.device, group=job.group)
    made = load_or_train(training, log, progress)
    log("measuring both models on the gates' chains")
    before = _figures(model, job, progress, "measuring the old model")
    after = _figures(made, job, progress, "measuring the new model")
    found = _gates(before, after, job.config.limits)
    if model.lever is not None:
        found["quantization_error"] = _error_gate(before, after, job.config.limits)
    statistics = {"before": before.as_json(), "after": after.as_json()}
    result = replace(result, gates=found, parent=model.codebook.version, statistics=statistics, churn=1.0)
    result = replace(result, notes=(*result.notes, "a new encoder: all tokens mean something else than before"))
    progress.report_result(result)
    if not result.passed:
        return replace(result, notes=(*result.notes, "a gate did not pass: the model is left in OUT/training alone"))
    if job.group.rank == 0:
        part = out / "model.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(training.finished, part)
        part.rename(finished)
        log(f"the new model is in {finished}")
    return replace(result, published=True, version=made.codebook.version, about={"model": str(finished)})


def _recipe(model: Model, steps: int, batch: int, crop: int, seed: int) -> Recipe:
    """The stages that train a model further."""
    if isinstance(model.decoder, Decoder):
        common = ChainConfig(steps=steps, batch=batch, crop=crop, settling=0, coarse_from=0.0, seed=seed)
        return Recipe(
            name=model.name,
            joint_stage=replace(common, stage="joint"),
            decoder_stage=replace(common, settling=min(steps // 10, 600)),
        )
    if model.lever is None:
        raise InvalidRecipe(f"scope full needs a decoder, or codes that encode motions, and {model.name} has neither")
    warmup = steps // 10
    encoder = MotionConfig(
        steps=steps,
        batch=batch,
        lever=model.lever,
        # Far below that of a training from scratch: a new optimizer's first steps would undo what was learned.
        learning_rate=3e-4,
        warmup=warmup,
        cooling=steps - warmup,
        # Images that repair have no compiler.
        compiled=False,
        seed=seed,
    )
    recipe = Recipe(name=model.name, encoder=encoder, kmeans=KMeansConfig(seed=seed))
    if model.decoder is None:
        return recipe
    sizes = model.decoder.config
    return replace(
        recipe,
        motion_decoder=MotionDecoderSizes(sizes.width, sizes.heads, sizes.layers, sizes.corrections),
        motion_decoder_stage=MotionDecoderTraining(
            steps=steps, batch=batch, crop=crop, settling=steps * 3 // 8, warmup=warmup, seed=seed
        ),
    )


def load_or_train(training: TrainJob, log: Log, progress: RunProgress = NO_PROGRESS) -> Model:
    """The model of a training, which goes on where it was stopped."""
    if training.finished.exists():
        return Store(training.finished).load()
    advance: Advance | None = None
    done = 0

    def report(figures: NamedTuple, steps: int) -> None:
        nonlocal advance, done
        step = int(figures._asdict()["step"])
        if advance is None or step <= done:  # of another stage, or after a phase or a checkpoint
            advance, done = progress.phase("training steps", steps - step + 1), step - 1
        advance(step - done)
        done = step

    def phase(name: str, total: int | None) -> Advance:
        nonlocal advance
        advance = None  # a display shows one phase at a time
        return progress.phase(name, total)

    return train(training, report, log, phase)


def _figures(model: Model, job: RepairJob, progress: RunProgress, phase: str) -> Evaluation:
    assert job.gate_data is not None  # noqa: S101 (for types; said above)
    config = job.config
    chains = drawn_chains(read_set(job.gate_data), config.gate_residues, config.seed)
    settings = EvaluationConfig(max_decode_residues=config.gate_decoded, seed=config.seed)
    residues = sum(int(np.isfinite(chain.coordinates).all((1, 2)).sum()) for chain in chains)
    return evaluate(model, chains, config=settings, report=progress.phase(phase, residues))


def _error_gate(before: Evaluation, after: Evaluation, limits: GateLimits) -> Gate:
    """The gate of the codes' errors, for models whose vectors have the same scale."""
    errors = before.quantization_squared_distance_mean, after.quantization_squared_distance_mean
    return gates.at_most(*errors, errors[0] * (1 + limits.quantization_error))


def _gates(before: Evaluation, after: Evaluation, limits: GateLimits) -> dict[str, Gate]:
    """Gates of figures that do not depend on an encoder's own space."""
    used = (before.codes_used_ratio, after.codes_used_ratio)
    found = {
        "utilization": gates.at_least(*used, used[0] - limits.utilization),
        "perplexity": gates.at_least(before.perplexity, after.perplexity, before.perplexity * (1 - limits.perplexity)),
    }
    if before.window_rmsd_mean is not None and after.window_rmsd_mean is not None:
        found["window_rmsd"] = gates.at_most(
            before.window_rmsd_mean,
            after.window_rmsd_mean,
            before.window_rmsd_mean * (1 + limits.quantization_error),
        )
    decoded = [gates.ReconstructionFigures(each.backbone_rmsd_median, each.lddt_ca_median) for each in (before, after)]
    return found | gates.reconstruction_gates(decoded[0], decoded[1], limits)
