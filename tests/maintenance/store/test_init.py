"""Initializing a store with an embedded model, also by several processes at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from foldmint_tokenizer.errors import ModelError, StoreLocked
from foldmint_tokenizer.store.embedded import EMBEDDED, initialize
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store, load_model
from foldmint_tokenizer.store.storage import Files

COMMAND = [sys.executable, "-m", "foldmint_maintenance.cli", "init", "--store"]


def test_of_several_processes_one_initializes_and_all_find_a_store(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([*COMMAND, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert sum("a copy of the embedded model foldmint" in line for line in told) == 1
    assert sum("a store already" in line for line in told) == len(told) - 1
    store = Store(tmp_path / "store")
    assert (store.versions(), store.history()) == (["000001"], ["000001"])
    assert store.load().encoder_digest == load_model().encoder_digest


def test_one_that_waited_leaves_what_was_activated_meanwhile(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with StoreLock(files):  # a process at it
        late = subprocess.Popen([*COMMAND, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for name in ("encoder.safetensors", "decoder.safetensors", "model.json"):
            files.write(name, (EMBEDDED["foldmint"] / name).read_bytes())
        files.write("ACTIVE", b"000002\n")
    assert "a store already" in late.communicate()[0]
    assert late.returncode == 0
    assert files.read("ACTIVE") == b"000002\n"
    assert not files.exists("codebooks")


@pytest.mark.parametrize("model", EMBEDDED)
def test_what_a_killed_process_left_is_replaced(model: str, tmp_path: Path) -> None:
    (tmp_path / "codebooks/000001").mkdir(parents=True)
    for name in ("encoder.safetensors", "codebooks/000001/codebook.safetensors"):
        (tmp_path / name).write_bytes(b"the first bytes of it")
    assert initialize(Files(tmp_path), model)
    assert load_model(tmp_path).encoder_digest == load_model(EMBEDDED[model]).encoder_digest
    assert not initialize(Files(tmp_path), model)


def test_one_that_cannot_wait_longer_says_who_holds_the_store(tmp_path: Path) -> None:
    with StoreLock(Files(tmp_path)), pytest.raises(StoreLocked, match="is locked by"):
        initialize(Files(tmp_path), wait=0)


def test_an_empty_store_says_how_it_is_initialized(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"model.json cannot be read.*init --store {tmp_path}"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").write_text("not of a store")
    with pytest.raises(ModelError) as told:
        load_model(tmp_path)
    assert "init --store" not in str(told.value)
