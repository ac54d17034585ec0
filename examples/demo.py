"""A real structure to tokens over gRPC and back, and what Prometheus would see of it.

make demo
"""

import subprocess
import sys
import urllib.request
from pathlib import Path

from foldmint_client import Client

STRUCTURE = Path(__file__).with_name("1a8o.cif.gz")
SHOWN = ("foldmint_requests_total", "foldmint_residues_total", "foldmint_code_utilization", "foldmint_code_perplexity")


def main() -> None:
    """Start a server on free ports, tokenize, print, stop."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--listen", "127.0.0.1:0"]
    command += ["--metrics-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "console"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline().strip() for _ in range(2)]
        if not lines[1]:
            raise SystemExit("the server did not start; its log is above")
        try:
            show(address=lines[0].split()[-1], metrics=lines[1].split()[-1])
        finally:
            server.terminate()


def show(address: str, metrics: str) -> None:
    """Tokenize the structure, decode its tokens, and print both and some metrics."""
    with Client(address) as client:
        result = client.tokenize(STRUCTURE)
        decoded = client.detokenize(result)
    for chain in result.chains:
        print(f"\n{STRUCTURE.name}, chain {chain.chain}: {len(chain.tokens)} residues")
        print(f"model {result.model}, codebook {result.codebook_version}\n")
        for start in range(0, len(chain.tokens), 10):
            letters = chain.sequence[start : start + 10]
            codes = " ".join(f"{code:4d}" for code in chain.tokens[start : start + 10])
            print(f"{chain.residue_index[start]:5d}  {letters:10s}  {codes}")
    first = decoded.chains[0]
    x, y, z = first.coordinates[0, 1]
    print(f"\ndecoded: pTM {decoded.ptm:.2f}, mean pLDDT {first.plddt.mean():.2f}; CA at {x:.1f} {y:.1f} {z:.1f} Å")
    with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
        text = page.read().decode()
    hit = [
        line for line in text.splitlines() if line.startswith("foldmint_code_hits_total") and not line.endswith(" 0.0")
    ]
    print(f"\nhttp://{metrics}/metrics, {len(hit)} codes hit:\n")
    print("\n".join(line for line in text.splitlines() if line.startswith(SHOWN)))
    print("\n".join([*hit[:5], "..."]))


if __name__ == "__main__":
    main()
