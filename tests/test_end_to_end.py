"""The commands as scripts use them: a real server, the real client, the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foldmint_client import AsyncClient, Backbone, Client, InvalidStructure
from foldmint_client.results import Tokens
from foldmint_maintenance.corpus import Record
from foldmint_tokenizer import StructureTokenizer, backbone
from support import ROOT, RunningServer

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("protos", "client", "tokenizer", "server")),
}


def foldmint(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "foldmint_client", *arguments],
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
    assert "no atoms" in finished.stderr


def test_info_and_health(server: RunningServer) -> None:
    info = foldmint("info", "--server", server.address, "--json")
    assert json.loads(info.stdout)["model"] == StructureTokenizer.load().model.name
    assert foldmint("health", "--server", server.address).returncode == 0


def test_the_library(server: RunningServer, chains: list[Record], data: Path) -> None:
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


def test_the_demo() -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py"], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "1a8o.cif.gz, chain A: 70 residues" in finished.stdout
    assert "foldmint_code_hits_total" in finished.stdout
