"""Installs the packages that benchmarks compare with, in a separate environment, `.peers`, which also sees ours.

python -m benchmarks.baselines.peers
"""

import importlib
import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / ".peers"
PYTHON = PEERS / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def packages() -> Path:
    """Where the peers' packages lie."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(PEERS), "platbase": str(PEERS)}))


def install() -> None:
    """Make the environment. Each package by itself, so that one that cannot be had does not cost the others.

    torch and all else that ours has is not installed again: `site.addsitedir` shows ours to it.
    """
    venv.create(PEERS, with_pip=False)
    (PEERS / ".gitignore").write_text("*\n")
    ours = sysconfig.get_path("purelib")
    (packages() / "foldmint.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    for line in REQUIREMENTS.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", line]
            if subprocess.run(command, check=False).returncode:
                print(f"{line} cannot be installed, and will be left out")


def available(name: str) -> bool:
    """Whether a peer is installed."""
    return (packages() / name).is_dir()


def load(name: str) -> ModuleType:
    """A peer's module in this process; ours come first. Raises ImportError where it is not installed."""
    if importlib.util.find_spec(name) is None and available(name):
        sys.path.append(str(packages()))
    return importlib.import_module(name)


if __name__ == "__main__":
    install()
