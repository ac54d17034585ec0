"""The command: what it prints, writes and answers when something is wrong."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from foldmint_maintenance.cli import main
from foldmint_maintenance.datasets.loading import IngestConfig
from foldmint_maintenance.datasets.records import Record, read_parquet
from foldmint_maintenance.training.job import TrainJob
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import load_model


def _run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, foldmint_maintenance.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'gemmi')))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    status, out, _ = _run("--help")
    assert status == 0
    for command in ("ingest", "train", "evaluate", "import-esm3"):
        assert command in out


@pytest.mark.parametrize(("command", "config"), [("train", TrainJob), ("ingest", IngestConfig)])
def test_every_setting_is_an_option_with_the_same_default(command: str, config: type) -> None:
    parameters = inspect.signature(getattr(main, command)).parameters
    # The windows' sample has no option of its own, torchrun makes the group, and the command looks for a GPU.
    inner = {"windows_residues", "group", "device", "recipe"} if config is TrainJob else set()
    assert config is not TrainJob or {"recipe", "device"} <= parameters.keys()
    for field in fields(config):
        if field.name not in inner:
            assert field.name in parameters
            if field.default is not MISSING:
                assert parameters[field.name].default == field.default, field.name


def test_train_then_evaluate(parquet: Path, tmp_path: Path, recipe_file: Path) -> None:
    command: list[str | Path] = [
        "train",
        "--data",
        parquet,
        "--out",
        tmp_path / "job",
        "--recipe",
        recipe_file,
        "--device",
        "cpu",
    ]
    command += ["--stage", "codes", "--set", "codes.steps=9"]
    status, out, err = _run(*command, "--name", 'my "model"')
    assert (status, err) == (0, "")
    assert "step 9/9" in out
    assert f"the model is in {tmp_path / 'job' / 'model'}" in out
    assert load_model(tmp_path / "job" / "model").name == 'my "model"'

    report = tmp_path / "report.json"
    status, out, _ = _run("evaluate", "--model", tmp_path / "job" / "model", "--data", parquet, "--json-file", report)
    assert status == 0
    figures = json.loads(report.read_text())
    assert list(figures) == [
        *("chains", "residues", "codes_used_ratio", "perplexity", "window_rmsd_mean", "window_rmsd_median"),
        *("mutual_information_bits", "backbone_rmsd_median", "lddt_ca_median", "tm_score_median"),
        *("tracking_rmsd_median", "tracking_lddt_ca_median", "tracking_tm_score_median", "anchored_rmsd_median"),
        *("same_under_noise", "mutual_information_burial_bits", "reconstruction", "assignments"),
        *("quantization_distance_mean", "quantization_squared_distance_mean", "model", "codebook_version", "notes"),
    ]
    assert figures["model"] == 'my "model"'
    assert figures["window_rmsd_mean"] > 0
    assert f"{figures['perplexity']:.4g}" in out
    assert "no decoder" in out

    status, _, err = _run(*command)
    assert (status, err.startswith("error: "), "is there already" in err) == (1, True, True)


def test_a_training_may_begin_with_a_model(model: Model, parquet: Path, tmp_path: Path, recipe_file: Path) -> None:
    command: list[str | Path] = [
        "train",
        "--data",
        parquet,
        "--recipe",
        recipe_file,
        "--device",
        "cpu",
        "--model",
        tmp_path / "a-model",
    ]
    status, out, _ = _run(*command, "--out", tmp_path / "job", "--stage", "decoder_stage", "--checkpoint-every", "2")
    assert status == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("step ")] == ["2/7", "4/7", "6/7", "7/7"]
    made = load_model(tmp_path / "job" / "model")
    assert made.encoder_digest == model.encoder_digest
    assert made.decoder is not None
    status, _, err = _run(*command, "--out", tmp_path / "other", "--set", "decoder_stage.weights.binned=heavy")
    assert (status, "decoder_stage.weights.binned cannot be 'heavy'" in err) == (2, True)


def test_a_reference_changes_the_windows(model: Model, parquet: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    _run("evaluate", "--model", tmp_path / "a-model", "--data", parquet, "--json-file", report)
    assert json.loads(report.read_text())["window_rmsd_mean"] is None
    _run("evaluate", "--model", tmp_path / "a-model", "--data", parquet, "--reference", parquet, "--json-file", report)
    assert json.loads(report.read_text())["window_rmsd_mean"] > 0


def test_a_model_with_a_decoder_is_judged_by_what_it_decodes(
    decoding_model: Model, parquet: Path, tmp_path: Path
) -> None:
    report, page = tmp_path / "new" / "report.json", tmp_path / "new" / "pages" / "page.html"
    status, out, _ = _run(
        *(
            "evaluate",
            "--model",
            tmp_path / "a-decoding-model",
            "--data",
            parquet,
            "--json-file",
            report,
            "--page",
            page,
        ),
        *("--chains", "5", "--max-decode-residues", "50", "--seed", "1"),
    )
    assert status == 0
    figures = json.loads(report.read_text())
    assert (figures["chains"], figures["reconstruction"]["all"]["chains"]) == (5, 4)
    assert figures["reconstruction"]["chains_left_out"] == 1
    median = figures["reconstruction"]["buckets"][0]["backbone_rmsd"]["median"]
    assert figures["backbone_rmsd_median"] == median
    assert f"{median:.3g}" in out
    assert "a sample of 5 of 6 chains, drawn by the seed 1" in out
    told = figures["reconstruction"]["confidence"]
    said = f"{told['plddt_correlation']:.2f}, bias {told['plddt_bias']:+.3f}"
    assert f"pLDDT against lDDT-CA, by residue: correlation {said}; pTM" in " ".join(out.split())
    assert page.read_text(encoding="utf-8").count("<svg") == 6


def test_a_page_that_cannot_be_written_is_told_before_the_work(parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, out, err = _run("evaluate", "--data", parquet, "--page", tmp_path / "file" / "page.html")
    assert (status, out, err.startswith("error: ")) == (1, "", True)


def test_an_interrupted_training_says_so_and_exits_with_130(
    parquet: Path, tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from foldmint_maintenance.cli.progress import TrainingDisplay

    monkeypatch.setattr(TrainingDisplay, "report", lambda *_: signal.raise_signal(signal.SIGINT))
    status, _, err = _run("train", "--data", parquet, "--out", tmp_path / "job", "--recipe", recipe_file)
    assert status == 130
    assert err == "stopped after step 1; the same command goes on from there\n"


def test_ingest_tells_what_it_took_and_what_not(parquet: Path, tmp_path: Path, records: list[Record]) -> None:
    out = tmp_path / "out.parquet"
    status, text, _ = _run("ingest", parquet, "--out", out, "--min-residues", "42")
    assert status == 0
    assert [record.id for record in read_parquet(out)] == [record.id for record in records[3:]]
    assert f"{out}: 3 chains, 150 residues" in text
    assert "left out: 3 chains with fewer than 42 residues" in text


def test_import_esm3(encoder: Encoder, codebook: Codebook, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state = encoder.state_dict() | {f"codebook.{name}": value for name, value in codebook._asdict().items()}
    torch.save(state, path)
    status, out, _ = _run("import-esm3", "--encoder", path, "--out", tmp_path / "m")
    assert status == 0
    assert "esm3-structure-encoder-v0, width 16, 4 heads, 2 layers, 16 codes of 8 dimensions" in out
    status, _, err = _run("import-esm3", "--encoder", path, "--out", tmp_path / "m")
    assert (status, "not empty" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "absent", "--out", "o.parquet"], "there is no absent"),
        (["ingest", "bad.parquet", "--out", "o.parquet"], "cannot be read"),
        (["train", "--data", "bad.pdb", "--out", "job"], "bad.pdb: "),
        (["train", "--data", "bad.pdb", "--out", "job", "--model", "absent"], "model.json cannot be read"),
        (["train", "--data", "bad.pdb", "--out", "job", "--recipe", "empty.toml"], "the recipe has no stage"),
        (["evaluate", "--model", "absent", "--data", "bad.pdb"], "model.json cannot be read"),
        (["import-esm3", "--encoder", "bad.pdb", "--out", "m"], "not a zip archive"),
        (["import-esm3", "--encoder", "absent.pth", "--out", "m"], "No such file"),
    ],
)
def test_faults_are_one_message_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.parquet").write_text("nonsense")
    Path("bad.pdb").write_text("nonsense")
    Path("empty.toml").touch()
    status, _, err = _run(*arguments)
    assert status == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest"],
        ["ingest", "x", "--out", "o", "--min-residues", "0"],
        ["train", "--data", "x", "--out", "o", "--set", "codes.steps=10"],
        ["train", "--data", "x", "--out", "o", "--set", "sizes.width=0"],
        ["train", "--data", "x", "--out", "o", "--set", "width=1"],
        ["train", "--data", "x", "--out", "o", "--stage", "sizes"],
        ["train", "--data", "x", "--out", "o", "--name", ""],
        ["train", "--data", "x", "--out", "o", "--device", "abacus"],
        ["train", "--data", "x", "--out", "o", "--checkpoint-every", "0"],
        ["evaluate", "--data", "x", "--threads", "0"],
        ["evaluate", "--data", "x", "--chains", "0"],
        ["evaluate", "--data", "x", "--max-decode-residues", "0"],
        ["repair"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    status, _, err = _run(*arguments)
    assert status == 2
    assert "Usage" in err
    assert "Traceback" not in err
