"""What README, tutorial and how-tos show is what happens: their blocks, run in order, in a copy of the repository."""

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from foldmint_bulk.cli import main as bulk_cli
from foldmint_client.cli import main as client_cli
from foldmint_maintenance.cli import main as maintenance_cli
from foldmint_server.cli import main as server_cli
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from helpers.docs_session import NEEDS, RUN, Block, blocks_of, copy_of_repository, matches, run_blocks
from helpers.support import ROOT, missing

DOCS = ROOT / "docs"

START = "docs/index.md"
# Pages of one session see what those before them left: a server, files.
SESSIONS = {
    "readme": ["README.md"],
    "tutorial": ["docs/tutorial.md"],
    "how-to": [START, "docs/server.md", "docs/tokenize.md", "docs/decode.md"],
    "security": [START, "docs/security.md"],
    "codebook": [START, "docs/codebook.md"],
    "bulk": [START, "docs/bulk.md"],
    "models": [START, "docs/own-corpus.md", "docs/esm3.md"],
}
# Written by generators that have tests of their own; their examples are not session.
GENERATED = {
    "cli.md",
    "cli-bulk.md",
    "cli-maintenance.md",
    "metrics.md",
    "performance.md",
    "proto.md",
    "reliability.md",
    "settings.md",
}
# What the README promises, as a browser shows it: 60,000 residues and more, nearly all codes hit.
LOOK = Block(
    "README.md, and then a browser",
    0,
    "console",
    "$ chromium --headless --no-sandbox --user-data-dir=browser --virtual-time-budget=3000 --dump-dom"
    " http://localhost:9464/ 2> /dev/null | grep -oE '<(b|dd) id=\"(residues|utilization)\">[^<]*'\n"
    '<dd id="utilization">9...\n<b id="residues">60,...\n',
    "",
)

Faults = dict[str, Future[list[str]]]
PAGES = sorted(path for path in DOCS.glob("*.md") if path.name not in GENERATED)


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """What goes wrong in each session that is asked for; they run two at a time, since most of it is waiting."""
    asked = [item.callspec.params.get("session") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(_run, name, tmp_path_factory.mktemp(name)) for name in SESSIONS if name in asked}


def _run(session: str, folder: Path) -> list[str]:
    copy = folder / "foldmint"
    copy.mkdir()
    copy_of_repository(copy)
    blocks = [block for page in SESSIONS[session] for block in blocks_of(ROOT / page)]
    if any(block.note.startswith("with ") for block in blocks):
        _small_files_of_esm3s_form(copy)
    if session == "readme":
        blocks.append(LOOK)
    return run_blocks(blocks, copy)


@pytest.mark.slow
@pytest.mark.parametrize("session", SESSIONS)
def test_a_session(session: str, faults: Faults) -> None:
    if session == "readme" and shutil.which("chromium") is None:
        missing("Debian's package chromium", "`apt-get install chromium` installs it")
    wrong = faults[session].result()
    assert not wrong, "\n\n".join(wrong)


def _small_files_of_esm3s_form(folder: Path) -> None:
    """The published files' names and tensors, with random weights of small sizes."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(width=32, heads=4, layers=2, out=8, codes=4096))
    codes = {"embeddings": torch.randn(4096, 8), "N": torch.ones(4096), "z_avg": torch.randn(4096, 8)}
    tensors = encoder.state_dict() | {f"codebook.{name}": value for name, value in codes.items()}
    torch.save(tensors, folder / "esm3_structure_encoder_v0.pth")
    decoder = Decoder(DecoderConfig(width=128, heads=2, layers=1))
    torch.save(decoder.state_dict(), folder / "esm3_structure_decoder_v0.pth")


def test_the_readme_needs_nothing_that_is_not_run() -> None:
    blocks = blocks_of(ROOT / "README.md")
    assert not [str(block) for block in blocks if block.need or block.language not in RUN]
    assert len(blocks) >= 4


def test_the_tutorial_runs_but_for_docker_and_root() -> None:
    needs = Counter(block.need for block in blocks_of(DOCS / "tutorial.md"))
    assert set(needs) == {"", "docker", "root"}
    assert needs[""] >= 8
    assert needs["docker"] <= 2
    assert needs["root"] <= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    in_a_session = f"docs/{page.name}" in {name for names in SESSIONS.values() for name in names}
    for block in blocks_of(page):
        assert block.language in (*RUN, "yaml", ""), f"{block}: {block.language!r}"
        if block.language in ("console", "python"):
            assert in_a_session or block.need, f"{block} is in no session, and has no comment that says what it needs"


def _not_run() -> list[Block]:
    pages = [ROOT / "README.md", *PAGES]
    return [block for page in pages for block in blocks_of(page) if block.need and block.language == "console"]


def test_needs_are_all_in_use() -> None:
    assert {block.need for block in _not_run()} == set(NEEDS)


@pytest.mark.parametrize("block", _not_run(), ids=str)
def test_what_is_not_run_could_be(block: Block) -> None:
    for command, _ in block.commands:
        for part in command.split("&&"):
            _check(shlex.split(part), block)


def _check(words: list[str], block: Block) -> None:
    """Our own commands are read by the real command line, and files in deploy/ are there."""
    apps: dict[str, Any] = {
        "foldmint": client_cli.app,
        "foldmint-maintenance": maintenance_cli.app,
        "foldmint-server": server_cli.app,
        "foldmint-bulk": bulk_cli.app,
    }
    if words[0] == "torchrun":
        words = ["foldmint-maintenance", *words[words.index("foldmint_maintenance.cli") + 1 :]]
    if words[0] == "runuser":
        words = words[words.index("--") + 1 :]
    if (name := Path(words[0]).name) in apps:
        command: Any = typer.main.get_command(apps[name])
        arguments = words[1:]
        # The server's own options stand where others have a command.
        while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
            command, arguments = command.commands[arguments[0]], arguments[1:]
        command.make_context(words[0], arguments)
    for word in words:
        for part in word.split("="):
            if part.startswith(("deploy/", "benchmarks/", "examples/")):
                assert (ROOT / part).exists(), f"{block}: there is no {part}"


def test_what_is_not_run_is_read_by_the_real_command_line() -> None:
    block = Block("page", 1, "console", "", "needs hours")
    for wrong in (
        ["foldmint-maintenance", "train", "--no-such-option=1"],
        ["foldmint", "tokenise"],
        ["foldmint-server", "--threads", "many"],
        ["runuser", "--user=foldmint", "--", "/opt/foldmint/bin/foldmint-maintenance", "codebooks", "deactivate"],
        ["kubectl", "apply", "--filename=deploy/kubernetes/absent.yaml"],
    ):
        with pytest.raises((Exception, SystemExit)):
            _check(wrong, block)


def test_output_is_compared() -> None:
    assert matches("...\n a  b\n", "x\ny\na b\n")
    assert matches('{"a": ..., "b": 2}', '{"a": [1, 2], "b": 2}\n')
    assert matches("a\n...\n", "a\n")
    assert not matches("a\n", "a\nb\n")
    assert not matches("70 of 70", "69 of 70\n")
    assert not matches('{"a": ..., "b": 2}', '{"a": [1,\n2], "b": 2}\n')


def test_comments_that_are_not_understood_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("helpers.docs_session.ROOT", tmp_path)
    page = tmp_path / "page.md"
    for comment in ("needs a miracle", "skip", "background", "with luck", "retried often"):
        page.write_text(f"<!-- test: {comment} -->\n```console\n$ true\n```\n")
        with pytest.raises(ValueError, match="what is"):
            blocks_of(page)
    page.write_text("<!-- test: needs docker -->\n\n```console\n$ true\n```\n")
    with pytest.raises(ValueError, match="no block follows"):
        blocks_of(page)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "printed\none\n"),
        ("```console\n$ false\n$ true\n```\n", "'false' ended with 1"),
        ("```console\n$ false | true\n```\n", "ended with 1"),
        ("```python\nassert False\n```\n", "AssertionError"),
        ("<!-- test: background until false -->\n```console\n$ exit 3\n```\n", "was not reached"),
    ],
)
def test_what_goes_wrong_is_seen(text: str, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("helpers.docs_session.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / ".venv").symlink_to(sys.prefix)
    assert fault in "\n".join(run_blocks(blocks_of(page), copy))
