"""What is no codebook of a store's encoder is refused, with the reason, wherever it comes in; what was there stays."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from foldmint_maintenance.cli import main
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import DecoderRows
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store

CONFIG = ModelConfig(width=16, heads=2, layers=2, out=8, codes=32)
FILE, ROWS = "codebook.safetensors", "decoder.safetensors"


def _codebook() -> Codebook:
    vectors = torch.randn(CONFIG.codes, CONFIG.out)
    return Codebook(vectors, torch.ones(CONFIG.codes), vectors.clone())


def _created(place: Path, seed: int) -> Store:
    torch.manual_seed(seed)
    encoder, decoder = Encoder(CONFIG), Decoder(DecoderConfig(16, 2, 1))
    create_store(place, name="tiny", encoder=encoder, codebook=_codebook(), decoder=decoder, about={})
    rows = DecoderRows(torch.tensor([3]), torch.randn(1, 16))
    store = Store(place)
    store.publish(_codebook(), parent="000001", decoder_rows=rows, about={})
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose second version is not active."""
    return _created(tmp_path / "store", 0)


@pytest.fixture
def second(store: Store, tmp_path: Path) -> Path:
    """The folder of its second version."""
    return tmp_path / "store/codebooks/000002"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The folder of a version of another model of the same sizes."""
    _created(tmp_path / "other", 1)
    return tmp_path / "other/codebooks/000002"


def _codebooks(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and stderr."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, ["codebooks", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def _truncate(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])


def _change(folder: Path, **tensors: Tensor | None) -> None:
    """Other tensors in a version's file, and a manifest that fits."""
    path = folder / FILE
    changed = load_file(path) | tensors
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)
    _edit(folder, codebook_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _edit(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _withdraw(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _nonsense(folder: Path) -> None:
    (folder / FILE).write_bytes(b"no safetensors")
    _edit(folder, codebook_sha256=hashlib.sha256(b"no safetensors").hexdigest())


def _one(value: float, shape: tuple[int, ...]) -> Tensor:
    """Ones, and one value that differs."""
    tensor = torch.ones(shape)
    tensor.view(-1)[5] = value
    return tensor


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a corrupt file": (lambda f: _flip(f / FILE, -10), r"codebook\.safetensors is damaged: its SHA-256 is"),
    "a corrupt header": (lambda f: _flip(f / FILE, 9), r"codebook\.safetensors is damaged"),
    "a truncated file": (lambda f: _truncate(f / FILE, 100), r"codebook\.safetensors is damaged"),
    "an empty file": (lambda f: _truncate(f / FILE, 0), r"codebook\.safetensors is damaged"),
    "something else": (_nonsense, "is not a valid safetensors file"),
    "fewer codes": (
        lambda f: _change(f, N=torch.ones(31)),
        r"N has shape \(31,\), expected \(32,\)",
    ),
    "fewer dimensions": (
        lambda f: _change(f, embeddings=torch.ones(32, 7)),
        r"embeddings has shape \(32, 7\), expected \(32, 8\)",
    ),
    "sums of another shape": (lambda f: _change(f, z_avg=torch.ones(8, 32)), "z_avg has shape"),
    "a missing tensor": (lambda f: _change(f, z_avg=None), "has no tensor 'z_avg'"),
    "whole numbers": (
        lambda f: _change(f, N=torch.ones(32, dtype=torch.int64)),
        "N contains values that are not finite",
    ),
    "NaN in a vector": (
        lambda f: _change(f, embeddings=_one(torch.nan, (32, 8))),
        "embeddings contains values that are",
    ),
    "NaN in a count": (lambda f: _change(f, N=_one(torch.nan, (32,))), "N contains values that are not finite"),
    "infinity in a sum": (
        lambda f: _change(f, z_avg=_one(torch.inf, (32, 8))),
        "z_avg contains values that are not finite",
    ),
    "a count below zero": (lambda f: _change(f, N=_one(-1, (32,))), "N contains negative counts"),
    "another encoder": (lambda f: _edit(f, encoder_sha256="0" * 64), "belongs to another encoder"),
    "no encoder": (lambda f: _edit(f, encoder_sha256=None), "belongs to another encoder"),
    "another decoder": (lambda f: _edit(f, decoder_sha256="0" * 64), "belongs to another decoder"),
    "no file": (lambda f: (f / FILE).unlink(), r"codebook\.safetensors cannot be read"),
    "no decoder rows": (lambda f: (f / ROWS).unlink(), r"000002/decoder\.safetensors cannot be read"),
    "truncated decoder rows": (lambda f: _truncate(f / ROWS, 20), r"000002/decoder\.safetensors is damaged"),
    "a half upload": (_withdraw, r"manifest\.json cannot be read"),
    "a half upload of nothing yet": (_empty, r"manifest\.json cannot be read"),
    "half a manifest": (lambda f: _truncate(f / "manifest.json", 30), r"manifest\.json is not valid JSON"),
    "no folder": (shutil.rmtree, r"manifest\.json cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_version_that_is_not_whole_is_refused(name: str, store: Store, second: Path) -> None:
    damage, reason = DAMAGE[name]
    damage(second)
    with pytest.raises(ModelError, match=reason):
        store.codebook("000002")
    with pytest.raises(ModelError, match=reason):
        store.activate("000002")
    status, err = _codebooks("verify", "--store", store.files.location, "000002")
    assert status == 1
    assert err.startswith("bad: codebook 000002: ")
    assert re.search(reason, err)
    # The one in use stays in use, and goes on being good.
    assert store.active() == "000001"
    assert store.load().codebook.version == "000001"
    assert _codebooks("verify", "--store", store.files.location, "000001")[0] == 0


def test_a_version_of_another_model_is_refused_with_its_manifest(store: Store, second: Path, foreign: Path) -> None:
    shutil.copytree(foreign, second.with_name("000003"))
    _edit(second.with_name("000003"), version="000003")
    with pytest.raises(ModelError, match="codebook 000003 belongs to another encoder"):
        store.activate("000003")
    status, err = _codebooks("verify", "--store", store.files.location)
    assert (status, "codebook 000003 belongs to another encoder" in err) == (1, True)


LINEAGE: dict[str, tuple[dict[str, object], str]] = {
    "a version under another's name": ({"version": "000001"}, "its manifest is that of '000001'"),
    "its own parent": ({"parent": "000002"}, "its parent, '000002', is not an earlier version"),
    "a later parent": ({"parent": "000010"}, "its parent, '000010', is not an earlier version"),
    "a parent that is a number": ({"parent": 1}, "its parent, 1, is not an earlier version"),
}


@pytest.mark.parametrize("name", LINEAGE)
def test_a_lineage_that_cannot_be_is_told(name: str, store: Store, second: Path) -> None:
    values, reason = LINEAGE[name]
    _edit(second, **values)
    status, err = _codebooks("verify", "--store", store.files.location)
    assert (status, f"bad: codebook 000002: {reason}" in err) == (1, True)


STORE_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a version in use that is not there": (lambda s: (s / "ACTIVE").write_text("000009\n"), "bad: ACTIVE: "),
    "a version in use that is a path": (
        lambda s: (s / "ACTIVE").write_text("../x"),
        "ACTIVE does not name a version",
    ),
    "no version in use": (lambda s: (s / "ACTIVE").unlink(), "bad: ACTIVE: "),
    "a corrupt encoder": (lambda s: _flip(s / "encoder.safetensors", -3), "encoder.safetensors is damaged"),
    "a truncated decoder": (lambda s: _truncate(s / ROWS, 50), "decoder.safetensors is damaged"),
    "no decoder": (lambda s: (s / ROWS).unlink(), "decoder.safetensors cannot be read"),
    "no model.json": (lambda s: (s / "model.json").unlink(), "model.json cannot be read"),
}


@pytest.mark.parametrize("name", STORE_DAMAGE)
def test_a_store_that_is_not_whole_does_not_verify(name: str, store: Store) -> None:
    damage, reason = STORE_DAMAGE[name]
    place = Path(store.files.location)
    damage(place)
    status, err = _codebooks("verify", "--store", place)
    assert (status, reason in err) == (1, True)


IMPORTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a corrupt header": (lambda p: _flip(p, 0), "is not a safetensors file"),
    "a truncated file": (lambda p: _truncate(p, 500), "is not a safetensors file"),
    "an empty file": (lambda p: _truncate(p, 0), "is not a safetensors file"),
    "no file": (lambda p: p.unlink(), "cannot be read"),
    "a folder": (_make_folder, "cannot be read"),
    "no counts": (lambda p: _save(p, N=None), "has no tensor 'N'"),
    "another number of codes": (
        lambda p: _save(p, embeddings=torch.ones(33, 8), N=torch.ones(33), z_avg=torch.ones(33, 8)),
        "embeddings has shape (33, 8), expected (32, 8)",
    ),
    "another encoder's width": (
        lambda p: _save(p, embeddings=torch.ones(32, 128), z_avg=torch.ones(32, 128)),
        "embeddings has shape (32, 128), expected (32, 8)",
    ),
    "NaN": (lambda p: _save(p, z_avg=_one(torch.nan, (32, 8))), "z_avg contains values that are not finite"),
    "infinity": (
        lambda p: _save(p, embeddings=_one(torch.inf, (32, 8))),
        "embeddings contains values that are not finite",
    ),
    "a count below zero": (lambda p: _save(p, N=_one(-0.5, (32,))), "N contains negative counts"),
    "whole numbers": (lambda p: _save(p, N=torch.ones(32, dtype=torch.int32)), "N contains values that are not finite"),
}


def _save(path: Path, **tensors: Tensor | None) -> None:
    changed = load_file(path) | tensors
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, path)


@pytest.mark.parametrize("name", IMPORTS)
def test_a_file_that_is_no_codebook_is_not_imported(name: str, store: Store, tmp_path: Path) -> None:
    damage, reason = IMPORTS[name]
    file = tmp_path / "file.safetensors"
    save_file(_codebook()._asdict(), file)
    damage(file)
    status, err = _codebooks("import", "--store", store.files.location, "--from", file)
    assert status == 1
    assert err.startswith(f"error: {file}")
    assert reason in err
    assert (store.versions(), store.incomplete(), store.active()) == (["000001", "000002"], [], "000001")


def test_a_codebook_of_another_encoder_is_not_imported(store: Store, foreign: Path, tmp_path: Path) -> None:
    status, err = _codebooks("import", "--store", store.files.location, "--from", foreign / FILE)
    assert (status, "belongs to another encoder: that of SHA-256" in err) == (1, True)
    assert (store.versions(), store.active()) == (["000001", "000002"], "000001")


def test_nothing_is_imported_into_what_is_no_store(store: Store, second: Path, tmp_path: Path) -> None:
    status, err = _codebooks("import", "--store", tmp_path / "nothing", "--from", second / FILE)
    assert (status, "model.json cannot be read" in err) == (1, True)
    (tmp_path / "store/codebooks/000001/manifest.json").unlink()
    status, err = _codebooks("import", "--store", tmp_path / "store", "--from", second / FILE)
    assert (status, "000001/manifest.json cannot be read" in err) == (1, True)
    assert store.versions() == ["000002"]
