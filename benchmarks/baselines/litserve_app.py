"""The default model in LitServe, over HTTP: JSON with arrays packed as base64.

.peers/bin/python -m benchmarks.baselines.litserve_app --threads 2 --batch 8
"""

import base64
import threading
import time
import urllib.error
import urllib.request
from typing import Annotated, Any

import litserve
import numpy as np
import typer

from benchmarks.baselines.model import BATCH_WAIT, MODELS, Parsed, free_port, parsed
from foldmint_tokenizer import Backbone, TokenizedChain


class Api(litserve.LitAPI):
    """Decode, batch, predict, unbatch, encode; all in LitServe's worker, where it calls them."""

    def __init__(self, threads: int, batch: int, computes: str) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=BATCH_WAIT)
        self._count, self._computes = threads, computes

    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe's own signature)
        """Load the model, in the worker."""
        self.model = MODELS[self._computes](self._count)

    def decode_request(self, request: dict[str, Any], **_: object) -> Parsed:
        """The structure of a request's JSON."""
        chains = []
        for given in request["chains"]:
            coordinates = np.frombuffer(base64.b64decode(given["coordinates"]), "<f4").reshape(-1, 3, 3)
            index = np.frombuffer(base64.b64decode(given["residue_index"]), "<i4").astype(np.int64)
            chains.append(Backbone("A", "X" * len(index), index, coordinates))
        return parsed(chains)

    def batch(self, inputs: list[Parsed]) -> list[Parsed]:
        """Structures as they are; their rows are joined when they are computed."""
        return inputs

    def predict(self, x: list[Parsed] | Parsed, **_: object) -> list[list[TokenizedChain]] | list[TokenizedChain]:
        """The tokens of a batch; of one structure if batches are of one, as LitServe then has it."""
        return self.model.tokenize(x) if isinstance(x, list) else self.model.tokenize([x])[0]

    def unbatch(self, output: list[list[TokenizedChain]]) -> list[list[TokenizedChain]]:
        """The structures' tokens."""
        return output

    def encode_response(self, output: list[TokenizedChain], **_: object) -> dict[str, list[str]]:
        """Tokens, packed."""
        return {"tokens": [base64.b64encode(chain.tokens.astype("<u2").tobytes()).decode() for chain in output]}


def main(
    threads: Annotated[int, typer.Option()] = 1,
    batch: Annotated[int, typer.Option(help="Most structures of a batch.")] = 8,
    computes: Annotated[str, typer.Option(help=f"What computes: {', '.join(MODELS)}.")] = "engine",
) -> None:
    """Serve; say where once ready."""
    port = free_port()
    server = litserve.LitServer(Api(threads, batch, computes), accelerator="cpu", workers_per_device=1, timeout=False)
    threading.Thread(target=_say_when_ready, args=(port,), daemon=True).start()
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)


def _say_when_ready(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    print(f"listening on 127.0.0.1:{port}", flush=True)
                    return
        except (urllib.error.URLError, OSError):
            pass  # not yet
        time.sleep(0.2)


if __name__ == "__main__":
    typer.run(main)
