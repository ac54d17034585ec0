"""Import of ESM3's encoder: a state dict of its names and shapes, and files that are something else."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foldmint_maintenance.corpus import PreparedSet
from foldmint_maintenance.esm3 import import_esm3
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store import load_model

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
