"""A store loads as it was written, and is refused, with the reason, when anything about it is wrong."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foldmint_tokenizer import ModelError
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import DEFAULT, create_store, load_model

CONFIG = ModelConfig(width=16, heads=2, layers=2, out=8, codes=32)
DECODER = DecoderConfig(width=16, heads=2, layers=2, chained=True)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vectors = torch.randn(CONFIG.codes, CONFIG.out)
    codebook = Codebook(vectors, torch.ones(CONFIG.codes), vectors.clone())
    windows = torch.zeros(CONFIG.codes, 9, 3, 3)
    path = tmp_path / "store"
    create_store(path, name="tiny", encoder=Encoder(CONFIG), codebook=codebook, windows=windows, about={"seed": 0})
    return path


@pytest.fixture
def both(store: Path, tmp_path: Path) -> Path:
    """The same, with a decoder."""
    model, path = load_model(store), tmp_path / "both"
    codebook = model.codebook.codebook
    create_store(path, name="both", encoder=model.encoder, codebook=codebook, decoder=Decoder(DECODER), about={})
    return path


def test_round_trip(store: Path) -> None:
    model = load_model(store)
    assert (model.decoder, model.decoder_digest) == (None, None)
    assert (model.name, model.config, model.codebook.version) == ("tiny", CONFIG, "000001")
    again = load_model(store)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, again.encoder.state_dict()[name])
    assert model.codebook.windows is not None
    assert json.loads((store / "codebooks/000001/manifest.json").read_text())["parent"] is None


def test_round_trip_of_a_decoder(store: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, decoder = load_model(store), Decoder(DECODER)
    path, codebook = tmp_path / "both", model.codebook.codebook
    written = create_store(path, name="both", encoder=model.encoder, codebook=codebook, decoder=decoder, about={})
    for own in (written, load_model(path)):
        assert own.decoder is not None
        assert (own.decoder.config, own.decoder.training) == (DECODER, False)
        assert own.decoder.state_dict().keys() == decoder.state_dict().keys()
        for name, value in decoder.state_dict().items():
            assert torch.equal(value, own.decoder.state_dict()[name])
        assert own.decoder_digest == hashlib.sha256((path / "decoder.safetensors").read_bytes()).hexdigest()
        assert own.encoder_digest == model.encoder_digest


def test_a_model_may_have_a_reading_of_its_own(store: Path, tmp_path: Path) -> None:
    model, path = load_model(store), tmp_path / "esm"
    assert model.reading == "all"
    assert "reading" not in json.loads((store / "model.json").read_text())
    written = create_store(
        path, name="esm", encoder=model.encoder, codebook=model.codebook.codebook, reading="esm", about={}
    )
    assert (written.reading, load_model(path).reading) == ("esm", "esm")
    about = path / "model.json"
    about.write_text(about.read_text().replace('"reading": "esm"', '"reading": "?"'))
    with pytest.raises(ModelError, match=r"model\.json: reading is '\?'.*all, esm"):
        load_model(path)


def test_the_embedded_default_is_small_and_whole() -> None:
    model = load_model()
    assert model.config.codes == 4096
    assert model.codebook.windows is not None
    assert model.decoder is not None
    size = sum(file.stat().st_size for file in DEFAULT.rglob("*") if file.is_file())
    assert size < 40_000_000


def test_a_folder_in_use_is_not_written_over(store: Path) -> None:
    model = load_model(store)
    with pytest.raises(ModelError, match="not empty"):
        create_store(store, name="x", encoder=model.encoder, codebook=model.codebook.codebook, about={})


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model.json": (lambda s: (s / "model.json").unlink(), "cannot be read"),
    "model.json is not JSON": (lambda s: _write(s, "{"), "is not valid JSON"),
    "model.json is a list": (lambda s: _write(s, "[]"), "does not contain a JSON object"),
    "another format": (lambda s: _edit(s, format=99), "format 99"),
    "sizes that make no sense": (lambda s: _edit(s, sizes={"width": -1}), "incomplete or wrong"),
    "no encoder": (lambda s: (s / "encoder.safetensors").unlink(), "cannot be read"),
    "a truncated encoder": (lambda s: _truncate(s / "encoder.safetensors"), "damaged"),
    "a changed encoder": (lambda s: _flip(s / "encoder.safetensors"), "damaged"),
    "a changed codebook": (lambda s: _flip(s / "codebooks/000001/codebook.safetensors"), "damaged"),
    "a missing codebook": (lambda s: shutil.rmtree(s / "codebooks"), "cannot be read"),
    "no active version": (lambda s: (s / "ACTIVE").unlink(), "cannot be read"),
    "a version outside": (lambda s: _active(s, "../../etc"), "does not name a version"),
    "another encoder's codebook": (lambda s: _manifest(s, encoder_sha256="0" * 64), "another encoder"),
}


def _write(store: Path, text: str) -> None:
    (store / "model.json").write_text(text)


def _active(store: Path, version: str) -> None:
    (store / "ACTIVE").write_text(version)


def _edit(store: Path, **values: object) -> None:
    path = store / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _manifest(store: Path, **values: object) -> None:
    path = store / "codebooks/000001/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(store: Path, name: str) -> None:
    damage, reason = DAMAGE[name]
    damage(store)
    with pytest.raises(ModelError, match=reason):
        load_model(store)


DECODER_DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no decoder": (lambda s: (s / "decoder.safetensors").unlink(), "decoder.safetensors cannot be read"),
    "a truncated decoder": (lambda s: _truncate(s / "decoder.safetensors"), "decoder.safetensors is damaged"),
    "a changed decoder": (lambda s: _flip(s / "decoder.safetensors"), "decoder.safetensors is damaged"),
    "another decoder's digest": (lambda s: _edit_decoder(s, sha256="0" * 64), "decoder.safetensors is damaged"),
    "no digest": (lambda s: _edit(s, decoder={"sizes": {}}), "its decoder is incomplete or wrong"),
    "no sizes": (lambda s: _edit(s, decoder={"sha256": ""}), "its decoder is incomplete or wrong"),
    "null": (lambda s: _edit(s, decoder=None), "its decoder is incomplete or wrong"),
    "sizes that make no sense": (lambda s: _edit_sizes(s, heads=0), "heads must be a positive integer, not 0"),
    "heads that do not part the width": (lambda s: _edit_sizes(s, heads=3), "must be a multiple of twice the heads"),
    "chained is a word": (lambda s: _edit_sizes(s, chained="yes"), "chained must be true or false, not 'yes'"),
    "a size that is not known": (lambda s: _edit_sizes(s, depth=2), "its decoder is incomplete or wrong"),
    "another width": (lambda s: _edit_sizes(s, width=32), r"has shape \(.*16.*\), expected \(.*32"),
    "more layers": (lambda s: _edit_sizes(s, layers=3), "missing or unknown: decoder_stack.blocks.2"),
    "fewer layers": (lambda s: _edit_sizes(s, layers=1), "missing or unknown: decoder_stack.blocks.1"),
}


def _edit_decoder(store: Path, **values: object) -> None:
    _edit(store, decoder=json.loads((store / "model.json").read_text())["decoder"] | values)


def _edit_sizes(store: Path, **values: object) -> None:
    sizes = json.loads((store / "model.json").read_text())["decoder"]["sizes"]
    _edit_decoder(store, sizes=sizes | values)


@pytest.mark.parametrize("name", DECODER_DAMAGE)
def test_damage_of_a_decoder_is_told(both: Path, name: str) -> None:
    damage, reason = DECODER_DAMAGE[name]
    damage(both)
    with pytest.raises(ModelError, match=reason):
        load_model(both)


def _without_n(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["N"]


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], None], str]] = {
    "a missing tensor": (_without_n, "has no tensor 'N'"),
    "a wrong shape": (lambda t: t.update(embeddings=torch.zeros(3, 8)), "has shape"),
    "NaN": (lambda t: t.update(embeddings=torch.full((32, 8), torch.nan)), "not finite"),
    "whole numbers": (lambda t: t.update(N=torch.ones(32, dtype=torch.int64)), "not finite floating-point"),
    "windows of another shape": (lambda t: t.update(windows=torch.zeros(32, 9)), "windows has shape"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(store: Path, name: str) -> None:
    change, reason = TENSORS[name]
    path = store / "codebooks/000001/codebook.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    _manifest(store, codebook_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ModelError, match=reason):
        load_model(store)


_OUTPUT = "plddt_head.output.weight"

DECODER_TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a missing tensor": (lambda t: t.pop(_OUTPUT), f"missing or unknown: {_OUTPUT}"),
    "one too many": (lambda t: t.update(more=torch.zeros(1)), "missing or unknown: more"),
    "a wrong shape": (lambda t: t.update({_OUTPUT: torch.zeros(49, 16)}), rf"{_OUTPUT} has shape \(49, 16\)"),
    "NaN": (lambda t: t.update({_OUTPUT: torch.full((50, 16), torch.nan)}), f"{_OUTPUT} contains values that are not"),
    "whole numbers": (lambda t: t.update({_OUTPUT: torch.ones(50, 16).int()}), "not finite floating-point"),
}


@pytest.mark.parametrize("name", DECODER_TENSORS)
def test_tensors_that_do_not_fit_a_decoder(both: Path, name: str) -> None:
    change, reason = DECODER_TENSORS[name]
    path = both / "decoder.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    _edit_decoder(both, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ModelError, match=reason):
        load_model(both)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="heads"):
        ModelConfig(width=8, heads=0, layers=1, out=4)
    assert ModelConfig(width=100, heads=1, layers=1, out=1).hidden == 512
