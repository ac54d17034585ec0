"""The contract: its generated code is up to date, it is well-formed, and it keeps what has landed."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.support import ROOT

BUF = Path(sys.executable).with_name("buf")
PROTOS = ROOT / "protos"


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROTOS / "generate.py", tmp_path], check=True)
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*"))
    assert len(generated) >= 4
    for path in generated:
        assert (PROTOS / path).read_text() == (tmp_path / path).read_text(), f"{path} is stale: run `make protos`"


@pytest.mark.parametrize("arguments", [["lint"], ["breaking", "--against", PROTOS / "landed.binpb"]])
def test_buf(arguments: list[str]) -> None:
    checked = subprocess.run([BUF, arguments[0], PROTOS, *arguments[1:]], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_a_break_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "foldmint/v1").mkdir(parents=True)
    (tmp_path / "buf.yaml").write_text((PROTOS / "buf.yaml").read_text())
    text = (PROTOS / "foldmint/v1/tokenizer.proto").read_text()
    (tmp_path / "foldmint/v1/tokenizer.proto").write_text(text.replace("bytes coordinates = 2;", "bytes xyz = 2;"))
    checked = subprocess.run(
        [BUF, "breaking", tmp_path, "--against", PROTOS / "landed.binpb"], capture_output=True, text=True, check=False
    )
    assert checked.returncode != 0
    assert "coordinates" in checked.stdout
