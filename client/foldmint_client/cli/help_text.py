"""What the list of commands says of each, and what stands below its help: examples and exit codes."""

from collections.abc import Mapping

_USAGE = {2: "wrong usage"}
_SERVER = {3: "no server answers, or it refused or broke off"}
_STOPPED = {130: "ended with Ctrl-C", 141: "whoever read the output has enough"}


def _epilog(examples: Mapping[str, str], exits: Mapping[int, str]) -> str:
    """examples: what for, and the command. exits: codes, and what they mean."""
    shown = [f"  {what}:\n    $ {command}" for what, command in examples.items()]
    told = [f"  {code:<3}  {meaning}" for code, meaning in sorted(exits.items())]
    # Paragraphs that begin with \b are not filled anew.
    return "\n\n".join(f"\b\n{part}" for part in ("\n".join(["Examples:", *shown]), "\n".join(["Exit codes:", *told])))


SHORT: Mapping[str, str] = {
    "tokenize": "Tokens of structure files.",
    "detokenize": "Structures of tokens.",
    "compare": "The tokens of two structures, aligned.",
    "usage": "How often the codes were used.",
    "watch": "The same, live.",
    "info": "What a server serves.",
    "health": "Whether a server is well.",
}

EPILOG = """\b
Servers are named once with FOLDMINT_SERVER (and FOLDMINT_ADMIN), their
security with FOLDMINT_TLS_CA, FOLDMINT_TLS_CERTIFICATE, FOLDMINT_TLS_KEY and
FOLDMINT_TOKEN_FILE (or FOLDMINT_TOKEN, which holds the token itself).

\b
foldmint COMMAND --help tells of a command, with examples and exit codes.
foldmint --install-completion lets the shell complete commands and options."""

EPILOGS: Mapping[str, str] = {
    "tokenize": _epilog(
        {
            "One structure, as JSON": "foldmint tokenize 1a8o.cif.gz",
            "A folder of thousands, that may be interrupted": "foldmint tokenize -o tokens.jsonl structures/",
            "Go on after that, or ask again for what failed": "foldmint tokenize --resume -o tokens.jsonl structures/",
            "An archive, chains of a file, and what a list names": "foldmint tokenize set.tar.gz 1a8o.pdb:A @list.txt",
            "For training, as Parquet in parts": (
                "foldmint tokenize --format parquet --rows-per-shard 10000 -o shards structures/"
            ),
            "What failed, for a program": "foldmint tokenize -o tokens.jsonl --failures failed.jsonl structures/",
            "Without a file": "zcat 1a8o.cif.gz | foldmint tokenize -",
        },
        {
            0: "all done",
            1: "some input has no tokens, or the output cannot be written",
            **_USAGE,
            **_SERVER,
            **_STOPPED,
        },
    ),
    "detokenize": _epilog(
        {
            "A PDB file of each structure": "foldmint detokenize --out decoded tokens.jsonl",
            "There and back": "foldmint tokenize 1a8o.cif.gz | foldmint detokenize --out 1a8o.pdb -",
            "Token ids of your own": "echo 17 4 93 | foldmint detokenize -",
        },
        {
            0: "all done",
            1: "some input has no structure, or the output cannot be written",
            **_USAGE,
            3: "no server answers, it refused or broke off, or its model has no decoder",
            **_STOPPED,
        },
    ),
    "compare": _epilog(
        {
            "Two structures": "foldmint compare 1a8o.cif.gz model.pdb",
            "Two chains": "foldmint compare --chain-a A --chain-b C complex.cif complex.cif",
            "How far codes lie apart": (
                "foldmint compare --codebook store/codebooks/000001/codebook.safetensors a.cif b.cif"
            ),
            "The share of equal tokens": "foldmint compare --json a.jsonl b.jsonl | jq .share",
        },
        {0: "compared", 1: "an input has no tokens, or there are no two to compare", **_USAGE, **_SERVER},
    ),
    "usage": _epilog(
        {
            "The active codebook": "foldmint usage",
            "Of another server, the twenty most frequent codes": "foldmint usage --admin gpu1:50052 --top 20",
            "Hits of all codes": "foldmint usage --json | jq .hits",
        },
        {0: "printed", **_USAGE, **_SERVER},
    ),
    "watch": _epilog(
        {
            "Until Ctrl-C": "foldmint watch",
            "A minute, into a file": "foldmint watch --json --count 60 > usage.jsonl",
        },
        {0: "ended with Ctrl-C or after --count", **_USAGE, 3: "no server answered at the start, or it refused"},
    ),
    "info": _epilog(
        {"As a table": "foldmint info", "The codebook's version": "foldmint info --json | jq -r .codebook_version"},
        {0: "printed", **_USAGE, **_SERVER},
    ),
    "health": _epilog(
        {"In a script": "foldmint health --server gpu1:50051 || echo not yet"},
        {0: "SERVING", 1: "anything else", **_USAGE, 3: "no server answers"},
    ),
}
