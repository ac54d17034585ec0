"""Structures read in a child process are those that are read in this one, and what ends the child ends nothing else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.speed.large_files import large_file
from foldmint_tokenizer import InvalidStructure, Limits, ReadOptions, read_structure
from foldmint_tokenizer.errors import ParserKilled
from foldmint_tokenizer.neighborhoods import structure_geometry
from foldmint_tokenizer.parsing.messages import Parsed
from foldmint_tokenizer.parsing.process import ParserProcess
from foldmint_tokenizer.structure.backbone import backbone
from foldmint_tokenizer.structure.left_out import frame_warnings
from helpers.support import ROOT
from helpers.waiting import wait_until

OPTIONS = [
    ReadOptions(),
    ReadOptions(reading="esm"),
    ReadOptions(min_plddt=30.0, renumber=True),
    ReadOptions(chains=["A"], model_number=1),
    ReadOptions(limits=Limits(residues=80)),
]


@pytest.fixture(scope="module")
def process() -> Iterator[ParserProcess]:
    with ParserProcess(seconds=60, memory_bytes=2**30) as process:
        yield process


@pytest.fixture(scope="module")
def large() -> bytes:
    return large_file(20)


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@pytest.mark.parametrize("complex_", [False, True], ids=["chains", "complex"])
def test_answers_equal_those_of_the_reader(process: ParserProcess, options: ReadOptions, complex_: bool) -> None:
    read = 0
    for path in sorted((ROOT / "tests" / "cases").iterdir()):
        content = path.read_bytes()
        expected = _outcome(partial(_in_this_process, content, options, complex_))
        found = _outcome(partial(process.parse, content, options, complex=complex_))
        if isinstance(expected, InvalidStructure):
            assert isinstance(found, InvalidStructure)
            for name in ("field", "reason", "chain", "residue"):
                assert getattr(found, name) == getattr(expected, name)
            continue
        assert not isinstance(found, InvalidStructure)
        read += 1
        assert found.content.left_out == expected.content.left_out
        assert found.content.warnings == expected.content.warnings
        for chain, own in zip(found.content.chains, expected.content.chains, strict=True):
            for name in ("chain", "sequence", "insertion_codes"):
                assert getattr(chain, name) == getattr(own, name)
            _check_equal([chain.residue_index, chain.coordinates], [own.residue_index, own.coordinates])
        _check_equal(_arrays(found), _arrays(expected))
    assert read


@pytest.mark.parametrize("complex_", [False, True], ids=["chains", "complex"])
def test_backbones(process: ParserProcess, data: Path, complex_: bool) -> None:
    chains = [*read_structure(data / "4cup.cif.gz").chains, backbone(np.full((3, 3, 3), np.nan), chain="B")]
    found = process.parse(chains, complex=complex_)
    for chain, own in zip(found.content.chains, chains, strict=True):
        assert (chain.chain, chain.sequence, chain.insertion_codes) == (own.chain, own.sequence, own.insertion_codes)
    _check_equal(_arrays(found), _arrays(Parsed(found.content, structure_geometry(chains, complex_))))
    assert process.parse(chains[-1:]).content.warnings == frame_warnings(chains[-1:])
    with pytest.raises(InvalidStructure, match="no chains"):
        process.parse([])


def _in_this_process(content: bytes, options: ReadOptions, complex_: bool) -> Parsed:
    structure = read_structure(content, options)
    return Parsed(structure, structure_geometry(structure.chains, complex_))


def _outcome(read: Callable[[], Parsed]) -> Parsed | InvalidStructure:
    try:
        return read()
    except InvalidStructure as error:
        return error


def _arrays(parsed: Parsed) -> list[NDArray[Any]]:
    return [*parsed.geometry.frames, *parsed.geometry[1:]]


def _check_equal(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    for one, own in zip(found, expected, strict=True):
        assert one.dtype == own.dtype
        np.testing.assert_array_equal(one, own)


def test_the_child_needs_little(process: ParserProcess, data: Path) -> None:
    process.parse((data / "1a8o.cif").read_bytes())
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_a_child_that_ends_while_it_reads(process: ParserProcess, large: bytes, data: Path, name: str) -> None:
    process.parse((data / "1a8o.cif").read_bytes())
    busy = process.pid
    assert busy is not None
    before = _cpu_ticks(busy)

    def kill_once_busy() -> None:
        wait_until(lambda: _cpu_ticks(busy) > before + 10)
        os.kill(busy, signal.Signals[name])

    killer = threading.Thread(target=kill_once_busy)
    killer.start()
    with pytest.raises(ParserKilled, match=f"ended with {name}") as killed:
        process.parse(large)
    killer.join()
    assert not killed.value.limit
    assert process.parse((data / "1a8o.cif").read_bytes()).content.chains
    assert process.pid != busy


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_child_that_ended_between_structures_harms_none(process: ParserProcess, data: Path) -> None:
    content = (data / "1a8o.cif").read_bytes()
    process.parse(content)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.parse(content).content.chains


def test_limits(large: bytes, data: Path) -> None:
    small = (data / "1a8o.cif").read_bytes()
    with ParserProcess(memory_bytes=2**26) as process:
        with pytest.raises(ParserKilled, match="memory") as killed:
            process.parse(large)
        assert killed.value.limit
        assert process.parse(small).content.chains
    with ParserProcess(seconds=0.01) as process:
        with pytest.raises(ParserKilled, match=r"more than 0\.01 s") as killed:
            process.parse(large)
        assert killed.value.limit
        assert process.pid is None


def test_the_start_of_the_child_does_not_count(data: Path) -> None:
    """It takes longer than the structure may."""
    with ParserProcess(seconds=0.5) as process:
        assert process.parse((data / "1a8o.cif").read_bytes()).content.chains


def test_a_child_that_cannot_start() -> None:
    with ParserProcess(module="foldmint_tokenizer.no_such_module") as process:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="exit code 1"):
                process.parse(b"")
            assert process.pid is None


def test_closing_ends_the_child_for_good(data: Path, large: bytes) -> None:
    with ParserProcess() as process:
        process.parse((data / "1a8o.cif").read_bytes())
        pid = process.pid
        assert pid is not None
        before = _cpu_ticks(pid)

        def close_once_busy() -> None:
            wait_until(lambda: _cpu_ticks(pid) > before + 10)
            process.close()

        closer = threading.Thread(target=close_once_busy)
        closer.start()
        with pytest.raises(ParserKilled):
            process.parse(large)
        closer.join()
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(ParserKilled, match="closed"):
            process.parse(b"")


def test_no_child_outlives_its_parent(data: Path) -> None:
    code = (
        "import signal, sys\n"
        "from foldmint_tokenizer.parsing.process import ParserProcess\n"
        "process = ParserProcess()\n"
        "process.parse(open(sys.argv[1], 'rb').read())\n"
        "print(process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-c", code, str(data / "1a8o.cif")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "tokenizer")}
    ) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
    wait_until(lambda: not child.exists() or "State:\tZ" in (child / "status").read_text())
