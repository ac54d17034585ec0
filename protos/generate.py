"""Generate the Python code of the contract beside its .proto files.

python protos/generate.py [FOLDER]
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write the generated modules and their type stubs below `out`. Raises RuntimeError if protoc fails."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("foldmint/**/*.proto"))
    plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        # google/protobuf
        f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy_grpc={plugin}",
        f"--mypy_grpc_out=quiet:{out}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
