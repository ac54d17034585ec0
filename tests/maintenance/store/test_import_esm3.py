"""Import of ESM3's encoder and decoder: state dicts of their names and shapes, and files that are something else."""

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from foldmint_maintenance.cli.main import app
from foldmint_maintenance.datasets.records import PreparedSet
from foldmint_maintenance.store.import_esm3 import import_esm3
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import load_model

Tensors = dict[str, Tensor]


@pytest.fixture
def state(encoder: Encoder, codebook: Codebook) -> Tensors:
    return dict(encoder.state_dict()) | {f"codebook.{name}": value for name, value in codebook._asdict().items()}


def _saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_the_state_dict_has_the_published_names(state: Tensors) -> None:
    block = "transformer.blocks.{}."
    names = {"relative_positional_embedding.embedding.weight", "pre_vq_proj.weight", "pre_vq_proj.bias"}
    names |= {f"codebook.{name}" for name in ("embeddings", "N", "z_avg")}
    for layer in range(2):
        prefix = block.format(layer)
        names |= {f"{prefix}geom_attn.{m}.{p}" for m in ("s_norm", "proj", "out_proj") for p in ("weight", "bias")}
        names |= {f"{prefix}geom_attn.{kind}_scale_per_head" for kind in ("distance", "rotation")}
        names |= {f"{prefix}ffn.{index}.{p}" for index in (0, 1, 3) for p in ("weight", "bias")}
    assert state.keys() == names


def test_an_imported_model_computes_what_the_original_does(
    state: Tensors, encoder: Encoder, codebook: Codebook, sizes: ModelConfig, data: PreparedSet, tmp_path: Path
) -> None:
    import_esm3(_saved(state, tmp_path / "a.pth"), tmp_path / "model", "esm-tiny")
    model = load_model(tmp_path / "model")
    assert (model.name, model.config, model.codebook.windows) == ("esm-tiny", sizes, None)
    rows = [torch.from_numpy(part) for part in data.rows(slice(0, 50))]
    with torch.no_grad():
        assert torch.equal(model.encoder(*rows), encoder(*rows))
    for expected, found in zip(codebook, model.codebook.codebook, strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_stored_as_float32(state: Tensors, dtype: torch.dtype, tmp_path: Path) -> None:
    halves = {name: value.to(dtype) for name, value in state.items()}
    model = import_esm3(_saved(halves, tmp_path / "a.pth"), tmp_path / "model")
    assert {value.dtype for value in model.encoder.state_dict().values()} == {torch.float32}
    assert torch.equal(model.encoder.pre_vq_proj.weight, halves["pre_vq_proj.weight"].float())


def _without(name: str) -> Callable[[Tensors], object]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def _with(name: str, change: Callable[[Tensor], object]) -> Callable[[Tensors], object]:
    return lambda state: state | {name: change(state[name])}


_PROJ = "transformer.blocks.1.geom_attn.proj.weight"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without("pre_vq_proj.weight"), "pre_vq_proj.weight is missing"),
        (_without("codebook.N"), "1 tensors are missing, such as codebook.N"),
        (_without("transformer.blocks.1.ffn.3.bias"), "such as transformer.blocks.1.ffn.3.bias"),
        (lambda state: state | {"decoder.weight": torch.zeros(1)}, "1 tensors are unknown, such as decoder.weight"),
        (_with(_PROJ, lambda value: value[:-1].clone()), rf"{_PROJ} has shape \(59, 16\)"),
        (_with(_PROJ, lambda value: value / 0), f"{_PROJ} holds numbers that are not finite"),
        (_with(_PROJ, lambda value: value.int()), f"{_PROJ} holds torch.int32"),
        (_with(_PROJ, lambda value: value.tolist()), f"{_PROJ}' is a list"),
        (_with("pre_vq_proj.weight", lambda value: value[0].clone()), "pre_vq_proj.weight has 1 dimensions"),
        (_with("codebook.embeddings", lambda value: value[:0].clone()), "is zero"),
        (
            _with("relative_positional_embedding.embedding.weight", lambda value: value[:65].clone()),
            "has 65 rows; ESM3's encoder has 66",
        ),
        (lambda state: list(state.values()), "holds no tensors by name, but a list"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    state: Tensors, damage: Callable[[Tensors], object], reason: str, tmp_path: Path
) -> None:
    path = _saved(damage(state), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=reason):
        import_esm3(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class _Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_something_does_not(tmp_path: Path) -> None:
    path = _saved(_Attack(tmp_path / "owned"), tmp_path / "a.pth")
    with pytest.raises(ModelError, match="cannot be read as a checkpoint of tensors alone"):
        import_esm3(path, tmp_path / "model")
    assert not (tmp_path / "owned").exists()


def test_files_that_are_no_checkpoints_are_refused(state: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="not a zip archive"):
        import_esm3(path, tmp_path / "model")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        import_esm3(path, tmp_path / "model")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02h\x07.")  # asks for what was never stored
    with pytest.raises(ModelError, match="cannot be read"):
        import_esm3(path, tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        import_esm3(tmp_path / "absent.pth", tmp_path / "model")


@pytest.fixture
def decoder_state() -> Tensors:
    torch.manual_seed(0)
    return dict(Decoder(DecoderConfig(width=64, heads=4, layers=2)).state_dict())


def test_the_decoder_has_the_published_names(decoder_state: Tensors) -> None:
    names = {"embed.weight", "decoder_stack.norm.weight"}
    for layer in range(2):
        block = f"decoder_stack.blocks.{layer}."
        names |= {f"{block}attn.layernorm_qkv.{p}" for p in ("0.weight", "0.bias", "1.weight")}
        names |= {f"{block}attn.{module}.weight" for module in ("q_ln", "k_ln", "out_proj")}
        names |= {f"{block}ffn.{p}" for p in ("0.weight", "0.bias", "1.weight", "3.weight")}
    names |= {f"affine_output_projection.{m}.{p}" for m in ("ffn1", "norm", "proj") for p in ("weight", "bias")}
    names |= {f"plddt_head.{m}.{p}" for m in ("dense", "norm", "output") for p in ("weight", "bias")}
    names |= {f"pairwise_classification_head.{m}.weight" for m in ("downproject", "linear1", "linear2", "norm")}
    names |= {"pairwise_classification_head.norm.bias"}
    assert decoder_state.keys() == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_is_imported_beside_the_encoder(
    state: Tensors, decoder_state: Tensors, dtype: torch.dtype, tmp_path: Path
) -> None:
    given = {name: value.to(dtype) for name, value in decoder_state.items()}
    encoder, decoder = _saved(state, tmp_path / "e.pth"), _saved(given, tmp_path / "d.pth")
    import_esm3(encoder, tmp_path / "model", decoder_pth=decoder, decoder_heads=4)
    model = load_model(tmp_path / "model")
    assert model.decoder is not None
    assert model.decoder.config == DecoderConfig(width=64, heads=4, layers=2, chained=False)
    for name, value in model.decoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, given[name].float())
    about = json.loads((tmp_path / "model" / "model.json").read_text())["about"]
    digests = {file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() for file in ("e.pth", "d.pth")}
    assert (about["imported_from"], about["sha256"]) == ("e.pth", digests["e.pth"])
    assert (about["decoder_imported_from"], about["decoder_sha256"]) == ("d.pth", digests["d.pth"])


def test_heads_are_of_64_dimensions_unless_told(state: Tensors, tmp_path: Path) -> None:
    encoder = _saved(state, tmp_path / "e.pth")
    decoder = _saved(Decoder(DecoderConfig(width=192, heads=3, layers=1)).state_dict(), tmp_path / "d.pth")
    model = import_esm3(encoder, tmp_path / "model", decoder_pth=decoder)
    assert model.decoder is not None
    assert model.decoder.config == DecoderConfig(width=192, heads=3, layers=1)


def _narrow(state: Tensors) -> object:
    return dict(Decoder(DecoderConfig(width=32, heads=2, layers=1)).state_dict())


_OUT = "decoder_stack.blocks.1.attn.out_proj.weight"
_NO_DECODER = "this is not a state dict of ESM3's structure decoder: "


@pytest.mark.parametrize(
    ("damage", "heads", "reason"),
    [
        (_without("embed.weight"), 4, _NO_DECODER + "embed.weight is missing"),
        (_without(_OUT), 4, f"{_NO_DECODER}1 tensors are missing, such as {_OUT}"),
        (lambda state: state | {"more": torch.zeros(1)}, 4, f"{_NO_DECODER}1 tensors are unknown, such as more"),
        (_with(_OUT, lambda value: value[:-1].clone()), 4, rf"{_OUT} has shape \(63, 64\)"),
        (_with(_OUT, lambda value: value / 0), 4, f"{_OUT} holds numbers that are not finite"),
        (_with(_OUT, lambda value: value.int()), 4, f"{_OUT} holds torch.int32"),
        (_with(_OUT, lambda value: value.tolist()), 4, f"{_OUT}' is a list"),
        (_with("embed.weight", lambda value: value[0].clone()), 4, "embed.weight has 1 dimensions"),
        (_with("embed.weight", lambda value: value[:4096].clone()), 4, "4096 rows; ESM3's decoder has 4101"),
        (_with("embed.weight", lambda value: value[:, :0].clone()), None, "no decoder has these sizes"),
        (lambda state: state, 7, "64, must be a multiple of twice the heads, 7"),
        (_narrow, None, "width, 32, is not a multiple of 64: say how many heads it has"),
        (lambda state: {"embed.weight": state["embed.weight"]}, 4, "layers must be a positive integer, not 0"),
        (lambda state: list(state.values()), 4, "holds no tensors by name, but a list"),
        (lambda state: _Attack(Path("owned")), 4, "cannot be read as a checkpoint of tensors alone"),
    ],
)
def test_tensors_that_do_not_fit_a_decoder_are_named(
    state: Tensors,
    decoder_state: Tensors,
    damage: Callable[[Tensors], object],
    heads: int | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder, decoder = _saved(state, tmp_path / "e.pth"), _saved(damage(decoder_state), tmp_path / "d.pth")
    with pytest.raises(ModelError, match=reason):
        import_esm3(encoder, tmp_path / "model", decoder_pth=decoder, decoder_heads=heads)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "owned").exists()


def test_files_in_each_others_place_are_refused(state: Tensors, decoder_state: Tensors, tmp_path: Path) -> None:
    encoder, decoder = _saved(state, tmp_path / "e.pth"), _saved(decoder_state, tmp_path / "d.pth")
    with pytest.raises(ModelError, match="not a state dict of ESM3's structure encoder"):
        import_esm3(decoder, tmp_path / "model", decoder_pth=encoder)
    with pytest.raises(ModelError, match="not a state dict of ESM3's structure decoder"):
        import_esm3(encoder, tmp_path / "model", decoder_pth=encoder)
    with pytest.raises(FileNotFoundError):
        import_esm3(encoder, tmp_path / "model", decoder_pth=tmp_path / "absent.pth")
    assert not (tmp_path / "model").exists()


def test_an_encoder_of_more_codes_than_a_decoder_reads(state: Tensors, decoder_state: Tensors, tmp_path: Path) -> None:
    more = torch.randn(4097, state["codebook.embeddings"].shape[1])
    codebook = {"codebook.embeddings": more, "codebook.z_avg": more, "codebook.N": torch.ones(4097)}
    encoder = _saved(state | codebook, tmp_path / "e.pth")
    decoder = _saved(decoder_state, tmp_path / "d.pth")
    with pytest.raises(ModelError, match="a decoder reads 4096 codes, and the encoder has 4097"):
        import_esm3(encoder, tmp_path / "model", decoder_pth=decoder, decoder_heads=4)


def test_heads_of_no_decoder_are_refused() -> None:
    done = CliRunner().invoke(app, ["import-esm3", "--encoder", "e.pth", "--out", "m", "--decoder-heads", "4"])
    assert done.exit_code == 2
    assert "--decoder-heads needs --decoder" in done.output


def test_the_reading_of_the_model(state: Tensors, tmp_path: Path) -> None:
    path = str(_saved(state, tmp_path / "a.pth"))
    for name, options in (("all", []), ("all", ["--reading", "all"]), ("esm", ["--reading", "esm"])):
        out = tmp_path / "-".join(["model", *options])
        done = CliRunner().invoke(app, ["import-esm3", "--encoder", path, "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        assert load_model(out).reading == name
        assert ("reading" in json.loads((out / "model.json").read_text())) == bool(options)
    wrong = CliRunner().invoke(app, ["import-esm3", "--encoder", path, "--out", str(tmp_path / "x"), "--reading", "?"])
    assert wrong.exit_code == 2
