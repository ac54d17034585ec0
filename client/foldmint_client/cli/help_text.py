"""Short descriptions of the commands, and what stands below their help: examples and exit codes."""

from collections.abc import Mapping

from foldmint.command_line import epilog

_USAGE = {2: "wrong usage"}
_SERVER = {3: "the server cannot be reached, rejected the call, or broke it off"}
_STOPPED = {130: "interrupted by Ctrl-C", 141: "the reader closed the output (SIGPIPE)"}


SHORT: Mapping[str, str] = {
    "tokenize": "Tokenize structure files.",
    "detokenize": "Decode tokens to structures.",
    "compare": "Align the tokens of two structures.",
    "usage": "Show how often codes are used.",
    "watch": "Show code usage live.",
    "info": "Show what a server serves.",
    "health": "Check a server's health.",
}

EPILOG = """\b
Defaults of the connection options come from the environment: FOLDMINT_SERVER,
FOLDMINT_ADMIN, FOLDMINT_TLS_CA, FOLDMINT_TLS_CERTIFICATE, FOLDMINT_TLS_KEY, and
FOLDMINT_TOKEN_FILE or FOLDMINT_TOKEN (the token itself).

\b
Examples:
  Tokenize a structure:
    $ foldmint tokenize 1a8o.cif.gz
  Help for a command, with examples and exit codes:
    $ foldmint tokenize -h
  Completion of commands and options in the shell:
    $ foldmint --install-completion"""

EPILOGS: Mapping[str, str] = {
    "tokenize": epilog(
        {
            "One structure, as JSON": "foldmint tokenize 1a8o.cif.gz",
            "A large folder; may be interrupted": "foldmint tokenize -o tokens.jsonl structures/",
            "Continue that, or retry what failed": "foldmint tokenize --resume -o tokens.jsonl structures/",
            "An archive, chains of a file, files of a list": "foldmint tokenize set.tar.gz 1a8o.pdb:A @list.txt",
            "For training, as Parquet shards": (
                "foldmint tokenize --format parquet --rows-per-shard 10000 -o shards structures/"
            ),
            "Failures as JSON lines": "foldmint tokenize -o tokens.jsonl --failures failed.jsonl structures/",
            "From standard input": "zcat 1a8o.cif.gz | foldmint tokenize -",
        },
        {
            0: "complete",
            1: "an input has no tokens, or the output cannot be written",
            **_USAGE,
            **_SERVER,
            **_STOPPED,
        },
    ),
    "detokenize": epilog(
        {
            "A PDB file for each structure": "foldmint detokenize --output decoded tokens.jsonl",
            "Round trip": "foldmint tokenize 1a8o.cif.gz | foldmint detokenize --output 1a8o.pdb -",
            "Token ids of your own": "echo 17 4 93 | foldmint detokenize -",
        },
        {
            0: "complete",
            1: "an input has no structure, or the output cannot be written",
            **_USAGE,
            3: "the server cannot be reached, rejected the call or broke it off, or its model has no decoder",
            **_STOPPED,
        },
    ),
    "compare": epilog(
        {
            "Two structures": "foldmint compare 1a8o.cif.gz model.pdb",
            "Two chains": "foldmint compare --chain-a A --chain-b C complex.cif complex.cif",
            "With distances between codes": (
                "foldmint compare --codebook store/codebooks/000001/codebook.safetensors a.cif b.cif"
            ),
            "The share of equal tokens": "foldmint compare --json a.jsonl b.jsonl | jq .share",
        },
        {0: "compared", 1: "an input has no tokens, or there are none to compare", **_USAGE, **_SERVER},
    ),
    "usage": epilog(
        {
            "The active codebook": "foldmint usage",
            "Another server, its twenty most frequent codes": "foldmint usage --admin gpu1:50052 --top 20",
            "Hits of all codes": "foldmint usage --json | jq .hits",
        },
        {0: "printed", **_USAGE, **_SERVER},
    ),
    "watch": epilog(
        {
            "Until Ctrl-C": "foldmint watch",
            "One minute, to a file": "foldmint watch --json --count 60 > usage.jsonl",
        },
        {
            0: "ended by Ctrl-C or --count",
            **_USAGE,
            3: "the server could not be reached at the start, or rejected the call",
        },
    ),
    "info": epilog(
        {"As a table": "foldmint info", "The codebook's version": "foldmint info --json | jq -r .codebook_version"},
        {0: "printed", **_USAGE, **_SERVER},
    ),
    "health": epilog(
        {"In a script": "foldmint health --server gpu1:50051 || echo not yet"},
        {0: "SERVING", 1: "anything else", **_USAGE, 3: "the server cannot be reached"},
    ),
}
