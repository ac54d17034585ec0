"""The commands as scripts use them: a real server, the real client, the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foldmint_client import AsyncClient, Backbone, Client, FailedPrecondition, InvalidStructure
from foldmint_client.models.responses import Tokens
from foldmint_tokenizer import StructureDetokenizer, StructureTokenizer, backbone, read_backbones
from helpers.chains import RealChain
from helpers.files.pdb_text import PdbText, atom
from helpers.support import ROOT, RunningServer

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("protos", "client", "tokenizer", "server")),
}


def foldmint(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "foldmint_client", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )


def test_lines_a_chain(server: RunningServer, data: Path) -> None:
    paths = [str(data / name) for name in ("1a8o.pdb", "2beg.cif.gz", "4cup.cif.gz")]
    finished = foldmint("tokenize", "--server", server.address, "--format", "jsonl", *paths)
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    tokenizer = StructureTokenizer.load()
    expected = [(path, chain) for path in paths for chain in tokenizer.tokenize(path)]
    assert len(lines) == len(expected) == 7
    for line, (path, chain) in zip(lines, expected, strict=True):
        assert line["source"] == path
        assert line["chain"] == chain.chain
        assert line["sequence"] == chain.sequence
        assert line["tokens"] == chain.tokens.tolist()
        assert line["residue_index"] == chain.residue_index.tolist()
        assert line["has_frame"] == chain.has_frame.tolist()
        assert (line["model"], line["codebook_version"]) == (tokenizer.model.name, "000001")


def test_a_bad_file_among_good_ones(server: RunningServer, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pdb").write_text("nothing\n")
    finished = foldmint("tokenize", "--server", server.address, str(tmp_path), str(data / "1a8o.pdb"))
    assert finished.returncode == 1
    assert len(finished.stdout.splitlines()) == 1
    assert "bad.pdb" in finished.stderr
    assert "unknown format" in finished.stderr


def test_info_and_health(server: RunningServer) -> None:
    info = foldmint("info", "--server", server.address, "--json")
    assert json.loads(info.stdout)["model"] == StructureTokenizer.load().model.name
    assert foldmint("health", "--server", server.address).returncode == 0


@pytest.mark.slow
def test_the_library(server: RunningServer, chains: list[RealChain], data: Path) -> None:
    tokenizer = StructureTokenizer.load()
    with Client(server.address) as client:
        one = client.tokenize(data / "1a8o.pdb", distances=True)
        assert one.chains[0].tokens.tolist() == tokenizer.tokenize(data / "1a8o.pdb")[0].tokens.tolist()
        structures = [Backbone(chain.coordinates, chain.residue_index) for chain in chains]
        results = list(client.tokenize_many(structures))
        with pytest.raises(InvalidStructure) as caught:
            client.tokenize(b"junk")
    assert caught.value.violations[0].field == "file.content"
    assert len(results) == len(structures)
    for chain, (_, result) in zip(chains, results, strict=True):
        assert isinstance(result, Tokens)
        (expected,) = tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))
        assert result.chains[0].tokens.tolist() == expected.tokens.tolist()


async def test_the_asyncio_twin(server: RunningServer, data: Path) -> None:
    async with AsyncClient(server.address) as client:
        result = await client.tokenize(data / "2beg.cif.gz", complex=True)
        many = [pair async for pair in client.tokenize_many([data / "1a8o.pdb", data / "1a8o.cif"])]
    assert [chain.chain for chain in result.chains] == list("ABCDE")
    (_, first), (_, second) = many
    assert isinstance(first, Tokens)
    assert isinstance(second, Tokens)
    assert first.chains[0].tokens.tolist() == second.chains[0].tokens.tolist()


@pytest.mark.parametrize("special_tokens", [False, True])
@pytest.mark.parametrize("name", ["1a8o.cif", "2beg.cif.gz"])
def test_there_and_back(
    decoding_server: RunningServer, decoding_store: Path, data: Path, name: str, special_tokens: bool
) -> None:
    with Client(decoding_server.address) as client:
        tokens = client.tokenize(data / name, complex=True, special_tokens=special_tokens)
        decoded = client.detokenize(tokens, format="pdb", pae=True)
        alone = client.detokenize(tokens.chains[0])
    detokenizer = StructureDetokenizer.load(decoding_store)
    plain = StructureTokenizer.load(decoding_store).tokenize(data / name, complex=True)
    ids = [token for chain in plain for token in (4100, *chain.tokens.tolist())][1:]
    expected = detokenizer.detokenize(ids, pae=True)
    for own, chain, was in zip(decoded.chains, expected.chains, plain, strict=True):
        np.testing.assert_allclose(own.coordinates, chain.coordinates, atol=1e-4)
        np.testing.assert_allclose(own.plddt, chain.plddt, atol=1e-5)
        assert (own.chain, own.sequence) == (was.chain, was.sequence)
        assert own.residue_index.tolist() == was.residue_index.tolist()
    assert decoded.ptm == pytest.approx(expected.ptm, abs=1e-5)
    assert decoded.pae is not None
    assert expected.pae is not None
    np.testing.assert_allclose(decoded.pae, expected.pae, atol=1e-3)
    assert decoded.file is not None
    for backbone_read, own in zip(read_backbones(decoded.file), decoded.chains, strict=True):
        np.testing.assert_allclose(backbone_read.coordinates, own.coordinates, atol=1e-3)
    first = detokenizer.detokenize(plain[0].tokens)
    np.testing.assert_allclose(alone.chains[0].coordinates, first.chains[0].coordinates, atol=1e-4)


async def test_there_and_back_with_asyncio(decoding_server: RunningServer, data: Path) -> None:
    async with AsyncClient(decoding_server.address) as client:
        decoded = await client.detokenize(await client.tokenize(data / "2beg.cif.gz", special_tokens=True))
    assert [(chain.chain, len(chain)) for chain in decoded.chains] == [(name, 26) for name in "ABCDE"]
    with Client(decoding_server.address) as client:
        with pytest.raises(InvalidStructure) as caught:
            client.detokenize([1, 2, 4096])
        with pytest.raises(FailedPrecondition, match="codebook version '000002'"):
            client.detokenize([1, 2], codebook_version="000002")
    assert str(caught.value) == "tokens[2]: 4096 (MASK) is not allowed among the residues"
    assert caught.value.violations[0].field == "tokens[2]"


@pytest.mark.parametrize("form", ["jsonl", "parquet", "npz"])
def test_from_the_output_of_tokenize_to_files(
    decoding_server: RunningServer, data: Path, tmp_path: Path, form: str
) -> None:
    paths = [data / name for name in ("1a8o.pdb", "2beg.cif.gz", "1gbt.cif.gz")]
    at = ("--server", decoding_server.address)
    tokens = str(tmp_path / "tokens")
    assert foldmint("tokenize", *at, "--format", form, "-o", tokens, *map(str, paths)).returncode == 0
    finished = foldmint("detokenize", *at, "--out", str(tmp_path / "out"), tokens)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1a8o.pdb", "1gbt.pdb", "2beg.pdb"]
    for path in paths:
        decoded = read_backbones(tmp_path / "out" / f"{path.name.partition('.')[0]}.pdb")
        for own, was in zip(decoded, read_backbones(path), strict=True):
            assert own.chain == was.chain
            assert own.sequence == ("X" * len(was) if form == "npz" else was.sequence)
            assert own.residue_index.tolist() == was.residue_index.tolist()


def test_from_tokenize_to_detokenize_through_a_pipe(decoding_server: RunningServer, data: Path) -> None:
    at = ("--server", decoding_server.address)
    tokens = foldmint("tokenize", *at, str(data / "1a8o.pdb"))
    finished = foldmint("detokenize", *at, "--format", "mmcif", "-", stdin=tokens.stdout)
    assert finished.returncode == 0, finished.stderr
    assert len(read_backbones(finished.stdout.encode())[0]) == 70
    bad = foldmint("detokenize", *at, "-", stdin="1 2 4096")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.splitlines()[0] == "-:1: tokens[2]: 4096 (MASK) is not allowed among the residues"


def test_what_was_left_out_is_told(server: RunningServer, data: Path, tmp_path: Path) -> None:
    at, path = ("tokenize", "--server", server.address), str(data / "1a8o.pdb")
    (water,) = (json.loads(line)["left_out"] for line in foldmint(*at, path).stdout.splitlines())
    assert water == [{"kind": "water", "chain": "A", "residues": 88, "names": ["HOH"]}]
    out = str(tmp_path / "out.jsonl")
    finished = foldmint(*at, "--reading", "esm", "--json", "-o", out, path)
    (row,) = (json.loads(line) for line in Path(out).read_text().splitlines())
    assert len(row["tokens"]) == 66
    assert row["left_out"] == [{"kind": "hetatm", "chain": "A", "residues": 4, "names": ["MSE"]}, *water]
    assert json.loads(finished.stdout)["left_out"] == {"water": 88, "hetatm": 4}
    assert finished.stderr == ("left out of 1 structure: 4 residues (hetatm); see `left_out` in the output\n")


@pytest.mark.parametrize("form", ["jsonl", "parquet", "npz"])
def test_of_a_trace_of_ca_no_atom_is_made_up(
    decoding_server: RunningServer, data: Path, tmp_path: Path, form: str
) -> None:
    trace, tokens, out = tmp_path / "trace.pdb", tmp_path / "tokens", tmp_path / "out"
    trace.write_bytes(PdbText(data / "1a8o.pdb").each(lambda line, _: line if atom(line) == "CA" else None).bytes())
    at = ("--server", decoding_server.address)
    finished = foldmint("tokenize", *at, "--format", form, "-o", str(tokens), str(trace))
    assert finished.returncode == 0
    assert "only CA is present" in finished.stderr
    finished = foldmint("detokenize", *at, "--out", str(out), str(tokens))
    assert finished.returncode == 0
    assert finished.stderr.startswith("gaps for 70 residues without a frame, in 1 structure, 1 of which has nothing")
    assert "ATOM" not in (out / "trace.pdb").read_text()
    finished = foldmint("detokenize", *at, "--fill", "--overwrite", "--out", str(out), str(tokens))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (out / "trace.pdb").read_text().count(" CA ") == 70


@pytest.mark.slow
def test_the_demo() -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py"], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "1a8o.cif.gz, chain A: 70 residues" in finished.stdout
    assert "foldmint_code_hits_total" in finished.stdout
