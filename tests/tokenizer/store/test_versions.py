"""Versions of a codebook in a store: published whole, activated, kept, removed; in a folder and in S3."""

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from foldmint_tokenizer import StructureDetokenizer
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import DecoderRows
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store, load_model

CONFIG = ModelConfig(width=16, heads=4, layers=2, out=8, codes=32)


def _codebook(seed: int) -> Codebook:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(32, 8, generator=generator)
    counts = torch.rand(32, generator=generator)
    return Codebook(vectors, counts, vectors * counts[:, None])


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store of one version lies; it has a decoder."""
    place = str(tmp_path / "store")
    if request.param == "s3":
        place = f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    torch.manual_seed(0)
    encoder, decoder = Encoder(CONFIG), Decoder(DecoderConfig(16, 2, 1))
    create_store(place, name="tiny", encoder=encoder, codebook=_codebook(0), decoder=decoder, about={"seed": 0})
    return place


def test_versions_are_published_activated_and_removed(location: str) -> None:
    store = Store(location)
    assert (store.versions(), store.active()) == (["000001"], "000001")
    second = store.publish(_codebook(1), parent="000001", about={"why": "é"})
    assert (second.version, second.manifest["parent"], second.manifest["about"]) == ("000002", "000001", {"why": "é"})
    assert store.active() == "000001"
    store.activate("000002")
    for found in (Store(location).codebook(), load_model(location).codebook, store.load("000002").codebook):
        assert (found.version, found.digest, found.manifest) == (second.version, second.digest, second.manifest)
        assert torch.equal(found.codebook.embeddings, _codebook(1).embeddings)
    assert store.publish(_codebook(2), parent="000002", about={}).version == "000003"
    assert Store(location).versions() == ["000001", "000002", "000003"]
    with pytest.raises(ModelError, match="000002 is in use"):
        store.remove("000002")
    store.remove("000001")
    assert store.versions() == ["000002", "000003"]
    # A number that was given once is never given again: servers may still hold what had it.
    store.remove("000003")
    assert Store(location).publish(_codebook(3), parent="000002", about={}).version == "000004"


def test_nothing_of_a_version_is_seen_before_its_manifest(location: str) -> None:
    store = Store(location)
    second = store.publish(_codebook(1), parent="000001", about={})
    manifest = store.files.read("codebooks/000002/manifest.json")
    store.files.remove("codebooks/000002/manifest.json")
    assert (store.versions(), store.incomplete()) == (["000001"], ["000002"])
    with pytest.raises(ModelError, match=r"manifest\.json cannot be read"):
        store.activate("000002")
    assert store.active() == "000001"
    # What was left is passed over, and can be removed.
    assert store.publish(_codebook(1), parent="000001", about={}).version == "000003"
    store.remove("000002")
    assert store.incomplete() == []
    store.files.write("codebooks/000002/codebook.safetensors", b"half")
    store.files.write("codebooks/000002/manifest.json", manifest)
    with pytest.raises(ModelError, match="is damaged"):
        store.activate(second.version)


def test_a_file_is_created_once(location: str) -> None:
    files = Store(location).files
    files.create("LOCK/1", b"first")
    with pytest.raises(FileExistsError):
        files.create("LOCK/1", b"second")
    assert files.read("LOCK/1") == b"first"
    files.write("LOCK/1", b"third")
    assert files.read("LOCK/1") == b"third"
    assert files.names("LOCK") == ["1"]
    files.remove("LOCK/1")
    files.remove("LOCK/1")
    assert files.names("LOCK") == []
    with pytest.raises(FileNotFoundError):
        files.read("LOCK/1")


def _creates(folder: str, queue: "multiprocessing.Queue[int]") -> None:
    for number in range(200):
        try:
            Store(folder).files.create(f"race/{number}", str(os.getpid()).encode())
        except FileExistsError:
            continue
        queue.put(number)


def test_of_many_that_create_a_file_one_succeeds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_creates, args=(str(tmp_path), queue)) for _ in range(4)]
    for process in processes:
        process.start()
    won = sorted(queue.get(timeout=120) for _ in range(200))
    for process in processes:
        process.join()
    assert won == list(range(200))
    assert queue.empty()
    assert sorted(int(path.name) for path in (tmp_path / "race").iterdir()) == list(range(200))


def test_decoder_rows_go_with_their_version(location: str) -> None:
    store = Store(location)
    rows = DecoderRows(torch.tensor([3, 30]), torch.randn(2, 16))
    store.publish(_codebook(1), parent="000001", decoder_rows=rows, about={})
    model = store.load("000002")
    assert isinstance(model.decoder, Decoder)
    before, after = model.decoder.embed.weight, model.codebook.embedding(model.decoder)
    assert torch.equal(after[[3, 30]], rows.rows)
    kept = [code for code in range(len(before)) if code not in (3, 30)]
    assert torch.equal(after[kept], before[kept])
    assert torch.equal(store.codebook("000001").embedding(model.decoder), before)
    tokens = [1, 3, 5, 30]
    old, new = (StructureDetokenizer(store.load(version)) for version in ("000001", "000002"))
    expected = new.detokenize(tokens).chains[0].coordinates
    found = old.detokenize(tokens, inputs=old.inputs_of(model.codebook)).chains[0].coordinates
    assert (found == expected).all()
    assert (old.detokenize(tokens).chains[0].coordinates != expected).any()


ROWS = {
    "codes beyond the codebook": ({"codes": torch.tensor([1, 32])}, "does not contain distinct code numbers"),
    "a code twice": ({"codes": torch.tensor([1, 1])}, "does not contain distinct code numbers"),
    "codes that are no integers": ({"codes": torch.tensor([1.0, 2.0])}, "does not contain distinct code numbers"),
    "another width": ({"rows": torch.zeros(2, 15)}, "rows has shape"),
    "NaN": ({"rows": torch.full((2, 16), torch.nan)}, "rows contains values"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, decoder = Encoder(CONFIG), Decoder(DecoderConfig(16, 2, 1))
    create_store(tmp_path, name="tiny", encoder=encoder, codebook=_codebook(0), decoder=decoder, about={})
    rows = DecoderRows(torch.tensor([3, 30]), torch.randn(2, 16))
    Store(tmp_path).publish(_codebook(1), parent="000001", decoder_rows=rows, about={})
    change, reason = ROWS[name]
    file = tmp_path / "codebooks/000002/decoder.safetensors"
    file.write_bytes(save(load(file.read_bytes()) | change))
    _change_manifest(tmp_path, decoder_rows_sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(ModelError, match=reason):
        Store(tmp_path).codebook("000002")
    _change_manifest(tmp_path, decoder_sha256="0" * 64)
    with pytest.raises(ModelError, match="another decoder"):
        Store(tmp_path).codebook("000002")


def _change_manifest(store: Path, **values: object) -> None:
    path = store / "codebooks/000002/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("location", "reason"),
    [("s3://nowhere-at-all/x", "model.json cannot be read"), ("unknown://x", "cannot be reached")],
)
def test_a_place_that_cannot_be_reached_is_told(location: str, reason: str, bucket: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load_model(location)


def test_counts_below_zero_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bad = _codebook(0)
    with pytest.raises(ModelError, match="N contains negative counts"):
        create_store(tmp_path, name="x", encoder=Encoder(CONFIG), codebook=bad._replace(N=-bad.N), about={})
