"""The recipe of models whose codes encode motions: it resumes, codes are what they say, a repair moves meaning."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from maintenance.training.motion.tiny_recipe import TINY, nothing, tiny

from foldmint_maintenance.datasets.records import PreparedSet, Record
from foldmint_maintenance.datasets.secondary_structure import letters
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.errors import InvalidSet, TrainingStopped
from foldmint_maintenance.evaluation.evaluate import EvaluationConfig, evaluate
from foldmint_maintenance.repair.config import RepairConfig, RepairJob
from foldmint_maintenance.repair.job import repair
from foldmint_maintenance.training.config import KMeansConfig, MotionCodesConfig, MotionConfig
from foldmint_maintenance.training.job import TrainJob, train
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.training.motion.codes import VectorSpace, motion_codebook
from foldmint_maintenance.training.motion.objective import TargetTable, follows, motion_loss
from foldmint_maintenance.training.recipe import Recipe, read_recipe, recipe_path
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.motion_decoder import MotionDecoder
from foldmint_tokenizer.motion.motions import code_motions
from foldmint_tokenizer.store.model_store import Store, load_model


@pytest.fixture(scope="module")
def job(parquet: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return TrainJob(parquet, tmp_path_factory.mktemp("job") / "job", tiny())


@dataclass
class Phase:
    """A phase of a training, as a display is told of it."""

    name: str
    total: int | None
    done: int = 0

    def advance(self, more: int) -> None:
        self.done += more


@pytest.fixture(scope="module")
def phases() -> list[Phase]:
    """Those of `trained`."""
    return []


@pytest.fixture(scope="module")
def trained(job: TrainJob, phases: list[Phase]) -> Model:
    def phase(name: str, total: int | None) -> Callable[[int], None]:
        phases.append(Phase(name, total))
        return phases[-1].advance

    return train(job, nothing, nothing, phase)


def test_phases_without_steps_are_told_to_their_end(
    trained: Model,
    phases: list[Phase],
    records: list[Record],
) -> None:
    assert [phase.name for phase in phases] == [
        *("reading chains", "measuring surroundings"),
        *("computing vectors", "measuring surroundings", "k-means", "assigning codes", "averaging fragments"),
        *("computing vectors", "measuring surroundings", "k-means", "assigning codes", "averaging fragments"),
        *("reading chains", "computing vectors", "assigning codes", "tracking tokens"),
    ]
    read = [(phase.total, phase.done) for phase in phases if phase.name == "reading chains"]
    assert read == [(None, len(records))] * 2
    others = [phase for phase in phases if phase.name != "reading chains"]
    assert all(phase.total and phase.done == phase.total for phase in others)


@pytest.fixture(scope="module")
def geometry(job: TrainJob, trained: Model, tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """A job whose model took the encoder of `trained`."""
    made = TrainJob(
        job.data,
        tmp_path_factory.mktemp("geometry") / "job",
        replace(tiny("geometry"), encoder=None),
        job.out / "encoder" / "model",
    )
    train(made, nothing, nothing)
    return made


def test_a_recipe_makes_a_model_that_states_motions(trained: Model) -> None:
    assert trained.lever == tiny().vectors.lever  # type: ignore[union-attr]
    assert isinstance(trained.decoder, MotionDecoder)
    assert trained.decoder.config.out == trained.config.out == 16
    assert trained.lever is not None
    rotation, _ = code_motions(trained.codebook.codebook.embeddings, trained.lever)
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    # Codes are exact: what their vectors hold is the rotation itself.
    held = trained.codebook.codebook.embeddings[:, :9].view(-1, 3, 3) / trained.lever
    torch.testing.assert_close(held, rotation, atol=1e-5, rtol=0)


def test_the_other_recipe_takes_its_encoder(trained: Model, geometry: TrainJob) -> None:
    made = load_model(geometry.finished)
    assert (made.lever, made.config.out) == (11.0, 12)
    one, other = trained.encoder.state_dict(), made.encoder.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items() if not name.startswith("pre_vq_proj"))


def test_a_training_that_was_stopped_ends_with_the_same_encoder(parquet: Path, trained: Model, tmp_path: Path) -> None:
    job = TrainJob(parquet, tmp_path / "job", tiny(), checkpoint_every=2)

    def stop(progress: object, steps: int) -> None:
        if getattr(progress, "step", 0) == 3:
            raise TrainingStopped("as if killed")

    with pytest.raises(TrainingStopped):
        train(job, stop, nothing)
    assert train(job, nothing, nothing).encoder_digest == trained.encoder_digest


def test_vectors_of_the_new_space_are_the_encoders(trained: Model, small: PreparedSet) -> None:
    z = vectors_of(trained.encoder, small, np.arange(len(small)), ALONE, "cpu")
    neighbors = torch.from_numpy(surroundings(small).neighbors[small.shape.queries])
    assert trained.lever is not None
    for config in (
        MotionCodesConfig(7.0, 2.0, 0.5),
        MotionCodesConfig(8.0, 0.0, 0.0),
        MotionCodesConfig(9.0, 1.0, 0.0),
    ):
        space = VectorSpace.of(z, neighbors, trained.lever, config)
        moved = vectors_of(space.encoder(trained.encoder), small, np.arange(len(small)), ALONE, "cpu")
        torch.testing.assert_close(moved, space(z), atol=1e-3, rtol=1e-4)
        features = {0.0: 0 if config.burial == 0 else 1, 0.5: 4}[config.environment]
        assert moved.shape[1] == 12 + features


def test_every_code_has_its_residues() -> None:
    random = np.random.default_rng(0)
    z = torch.from_numpy(random.normal(size=(3000, 16)).astype(np.float32)) * 3
    codebook = motion_codebook(z, 50, MotionCodesConfig(10.0, rounds=6, batch=3000))
    assert (codebook.N > 0).all()
    assert float(codebook.N.sum()) == pytest.approx(3000)


def test_targets_are_the_motions_of_bonded_residues(small: PreparedSet) -> None:
    table = TargetTable(small)
    truth = table.rows(np.arange(len(small)))
    moves = follows(small)[small.shape.queries]
    np.testing.assert_array_equal(truth.moves.numpy(), moves)
    lever = 10.0
    exact = torch.cat([truth.motion[:, :9] * lever, truth.motion[:, 9:]], 1)
    loss, angle = motion_loss(exact, truth, lever)
    assert float(loss.abs().max()) < 1e-5
    assert float(angle.max()) < 1e-9
    loss, _ = motion_loss(exact + 1, truth, lever)
    assert (loss[truth.moves] > 3).all()
    assert (loss[~truth.moves] == 0).all()
    # A step of the chain is 3.8 Å, a cis one 2.9.
    step = truth.motion[truth.moves][:, 9:].norm(dim=1)
    assert ((step > 2.7) & (step < 4.2)).all()


def test_neighbors_are_counted_as_they_are(small: PreparedSet) -> None:
    found = surroundings(small)
    ca = small.backbone[small.chain == 0, 1]
    apart = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
    np.testing.assert_array_equal(found.neighbors[: len(ca)], (apart < 12).sum(1) - 1)
    assert (found.above <= found.neighbors).all()


def test_noise_moves_rows_and_none_leaves_them(small: PreparedSet) -> None:
    some = np.arange(0, len(small), 7)
    plain, still = small.rows(some), small.noisy_rows(some, np.zeros(len(some)), np.random.default_rng(0))
    moved = small.noisy_rows(some, np.full(len(some), 0.05), np.random.default_rng(0))
    for one, other in zip(plain, still, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)
    apart = np.abs(moved.origin - plain.origin)
    assert 0.02 < apart[:, 1:].mean() < 0.5
    np.testing.assert_array_equal(moved.offset, plain.offset)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"cooling": -1}, {"cooling": 9999}, {"noisy": 2.0}, {"lever": 0.0}, {"blur": -1.0}]
)
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|share|negative"):
        replace(MotionConfig(), **wrong)  # type: ignore[arg-type]


def test_a_repair_needs_no_decoder_rows(tmp_path: Path, parquet: Path) -> None:
    """Of the embedded model, codes that were killed and repaired rebuild without any training of the decoder."""
    model, folder = load_model(), tmp_path / "store"
    from shutil import copytree

    from foldmint_tokenizer.store.model_store import DEFAULT

    copytree(DEFAULT, folder)
    store = Store(folder)
    whole = model.codebook.codebook
    dead = torch.zeros(len(whole.N), dtype=torch.bool)
    dead[::10] = True
    far = whole.embeddings.clone()
    far[dead] += 1000
    killed = whole._replace(embeddings=far, N=torch.where(dead, 0, whole.N))
    store.activate(store.publish(killed, parent="000001", about={}).version)
    config = RepairConfig(min_exposure=0, min_gate_chains=0, min_gate_residues=0)
    done = repair(RepairJob(str(folder), config, parquet, gate_data=parquet), None, nothing)
    assert set(done.statistics["reconstruction"]) == {"before", "after"}
    made = Store(folder).load(done.version)
    assert made.codebook.decoder_rows is None
    assert len(done.replaced) == int(dead.sum())


def test_evaluation_tells_all_axes(trained: Model, records: list[Record]) -> None:
    found = evaluate(trained, records[:6], config=EvaluationConfig(noise_chains=2)).as_json()
    for name in (
        "tracking_rmsd_median",
        "tracking_lddt_ca_median",
        "tracking_tm_score_median",
        "anchored_rmsd_median",
        "mutual_information_burial_bits",
        "mutual_information_bits",
    ):
        assert isinstance(found[name], float), name
    assert found["same_under_noise"].keys() == {"0.01", "0.03", "0.1"}
    assert found["same_under_noise"]["0.01"] >= found["same_under_noise"]["0.1"]
    assert found["assignments"].keys() == {"independent", "anchored", "tracking"}


def test_letters_of_secondary_structure_are_told_where_none_are(chains: list[Record]) -> None:
    known = [chain for chain in chains if chain.dssp is not None and np.isfinite(chain.coordinates).all()][:5]
    agree = []
    for chain in known:
        assert chain.dssp is not None
        own = letters(chain.coordinates)
        assert set(own) <= set("HEC")
        three = ["H" if letter in "HGI" else "E" if letter in "EB" else "C" for letter in chain.dssp]
        agree += [one == other for one, other in zip(own, three, strict=True)]
    assert np.mean(agree) > 0.85


def test_letters_of_what_is_not_whole() -> None:
    nothing = np.full((8, 3, 3), np.nan, np.float32)
    assert letters(nothing) == "C" * 8
    assert letters(np.zeros((0, 3, 3), np.float32)) == ""


def test_an_encoder_without_room_for_motions_is_refused(parquet: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path("foldmint"), [*TINY, "sizes.out=12"])
    with pytest.raises(ValueError, match="no motion and environment"):
        train(TrainJob(parquet, tmp_path / "job", recipe), nothing, nothing)


def test_the_averaged_encoder_is_the_result(trained: Model) -> None:
    assert isinstance(trained.encoder, Encoder)
    assert all(torch.isfinite(value).all() for value in trained.encoder.state_dict().values())


@pytest.mark.parametrize("start", ["job", "geometry"])
def test_the_scale_of_a_models_vectors_is_kept(
    start: str, small: PreparedSet, tmp_path: Path, request: pytest.FixtureRequest, trained: Model
) -> None:
    """Without sizes, those of the model are the result's; and new codes are in its space."""
    origin: TrainJob = request.getfixturevalue(start)
    model = load_model(origin.finished)
    encoder = tiny().encoder
    assert model.lever is not None
    assert encoder is not None
    recipe = Recipe("on", encoder=replace(encoder, lever=model.lever), kmeans=KMeansConfig(residues=2000, rounds=3))
    made = train(TrainJob(origin.data, tmp_path / "job", recipe, origin.finished), nothing, nothing)
    assert (made.config, made.lever) == (model.config, model.lever)
    assert made.encoder_digest != model.encoder_digest
    before, after = (vectors_of(each.encoder, small, np.arange(len(small)), ALONE, "cpu") for each in (model, made))
    # It is matched on a sample of the residues.
    np.testing.assert_allclose(after[:, 12:].numpy().std(0), before[:, 12:].numpy().std(0), rtol=0.05)
    np.testing.assert_allclose(after[:, 12:].mean(0), before[:, 12:].mean(0), atol=0.1)
    nearest = nearest_code(after, made.codebook.codebook.embeddings)[1].square().mean()
    assert nearest < nearest_code(after, model.codebook.codebook.embeddings)[1].square().mean()


def test_more_codes_than_residues_are_refused() -> None:
    with pytest.raises(InvalidSet, match="40 residues with a frame are too few for 50 codes"):
        motion_codebook(torch.randn(40, 12), 50, MotionCodesConfig())
