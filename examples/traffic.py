"""Real chains through a server, so that there is something to see on its page and in Prometheus.

make traffic

The chains are those of tests/data/chains.parquet, about 20,000 residues, again and again: as many residues as it takes
to tell which codes are dead are sent in three passes.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from foldmint_client import Backbone, Client, Tls
from foldmint_client.models.responses import Tokens

CHAINS = Path(__file__).resolve().parent.parent / "tests/data/chains.parquet"


def main() -> None:
    """Send the chains, pass by pass, and print how many residues a second got tokens."""
    parser = argparse.ArgumentParser(description="Real chains through a server.")
    parser.add_argument("--server", default=os.environ.get("FOLDMINT_SERVER", "localhost:50051"), help="HOST:PORT")
    parser.add_argument("--passes", type=int, default=3, help="How often all chains are sent; 0: until Ctrl-C.")
    parser.add_argument("--tls-ca", default=os.environ.get("FOLDMINT_TLS_CA"), help="Certificates to trust, for TLS.")
    arguments = parser.parse_args()
    chains = read(CHAINS)
    done = 0
    tls = Tls(ca=arguments.tls_ca) if arguments.tls_ca else None
    with Client(arguments.server, tls=tls) as client:
        while done < arguments.passes or not arguments.passes:
            residues, started = 0, time.monotonic()
            for _, result in client.tokenize_many(chains):
                if not isinstance(result, Tokens):
                    raise SystemExit(str(result))
                residues += sum(len(chain) for chain in result.chains)
            done += 1
            seconds = time.monotonic() - started
            print(f"pass {done}: {len(chains)} chains, {residues} residues, {residues / seconds:.0f} a second")


def read(path: Path) -> list[Backbone]:
    """The backbones of a set."""
    return [
        Backbone(np.array(row["coordinates"], np.float32).reshape(-1, 3, 3), row["residue_index"], row["id"])
        for row in pq.read_table(path).to_pylist()
    ]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print()
