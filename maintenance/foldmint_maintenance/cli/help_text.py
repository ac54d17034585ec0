"""What stands in the help of the commands: groups of options, examples and exit codes."""

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand

_COUNTS, _DEAD, _MADE = "Counts of hits", "What is dead, and where it goes", "What is written"
_CONNECTION, _RUN = "Connections", "How it runs"

GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("prometheus", "window", "selector", "servers", "counts_file", "step_residues"), _COUNTS),
    **dict.fromkeys(("against", "against_version", "against_window", "max_psi"), "Comparison"),
    **dict.fromkeys(
        (
            *("strategy", "dead_threshold", "measure", "min_exposure"),
            *("residues", "rounds", "row_steps", "full_steps"),
        ),
        _DEAD,
    ),
    **dict.fromkeys(("gate_data", "max_churn"), "Gates"),
    **dict.fromkeys(("json_file", "report", "metrics_file", "pushgateway", "page", "plot", "counts"), _MADE),
    **dict.fromkeys(
        (*("prometheus_auth", "prometheus_ca"), *("tls", "tls_ca", "tls_certificate", "tls_key", "token_file")),
        _CONNECTION,
    ),
    **dict.fromkeys(
        ("device", "threads", "seed", "dry_run", "force", "lock_seconds", "resume", "checkpoint_every"), _RUN
    ),
}
"""The group of each option that has one, by the name of its parameter, which is the same in all commands."""


class Command(TyperCommand):
    """A command whose help has its options in groups, and whose errors name options as they are typed."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (their classes are private)
        """Write arguments and options, a section for each group, those without one first."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else GROUPS.get(str(parameter.name))
                sections.setdefault(own or "Options", []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what was typed; pydantic's words for a number out of range are put plainly."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.replace("Input should be", "must be")
            raise

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run it; what a config says of a setting is said of the option."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = as_typed(error.message, {str(each.name): max(each.opts, key=len) for each in self.params})
            raise


def as_typed(message: str, options: Mapping[str, str]) -> str:
    """A message with settings named as options. options: of each setting, the option.

    Settings of one word are options only where the message begins with them.
    """
    words = message.split(" ")
    for place, word in enumerate(words):
        name = word.rstrip(",:.;")
        if name in options and ("_" in name or place == 0):
            words[place] = options[name] + word[len(name) :]
    return " ".join(words)


def _epilog(examples: Mapping[str, str], exits: Mapping[int, str]) -> str:
    """examples: what for, and the command. exits: codes, and what they mean."""
    shown = [f"  {what}:\n    $ {command}" for what, command in examples.items()]
    meanings = [f"  {code:<3}  {meaning}" for code, meaning in sorted(exits.items())]
    # Paragraphs that begin with \b are not filled anew.
    parts = "\n".join(["Examples:", *shown]), "\n".join(["Exit codes:", *meanings])
    return "\n\n".join(f"\b\n{part}" for part in parts)


_ERRORS = {1: "an error, with its reason", 2: "a wrong option"}
_LOCKED = {4: "another run holds the store's lock", 130: "stopped; the store is whole"}

_FOLLOWED = {5: "the store says so, but a server does not follow, and why"}

EPILOGS: Mapping[str, str] = {
    "ingest": _epilog(
        {"A folder of structure files": "foldmint-maintenance ingest structures/ --output set.parquet"},
        {0: "done", **_ERRORS},
    ),
    "corpus": _epilog(
        {"The embedded models' sets": "foldmint-maintenance corpus --output data/"}, {0: "done", **_ERRORS}
    ),
    "train": _epilog(
        {
            "The default recipe": "foldmint-maintenance train --data train.parquet --output job/",
            "Another learning rate": (
                "foldmint-maintenance train --data train.parquet --output job/ --set encoder.learning_rate=1e-3"
            ),
        },
        {0: "done", **_ERRORS, 130: "stopped; the same command goes on from there"},
    ),
    "curves": _epilog(
        {"A stage": "foldmint-maintenance curves job/encoder/log.csv --output curves.svg"}, {0: "done", **_ERRORS}
    ),
    "evaluate": _epilog(
        {
            "The default model": "foldmint-maintenance evaluate --data val.parquet",
            "A sample, as a page": "foldmint-maintenance evaluate --data val.parquet --chains 100 --page page.html",
        },
        {0: "done", **_ERRORS},
    ),
    "import_esm3": _epilog(
        {
            "Encoder and decoder": (
                "foldmint-maintenance import-esm3 --encoder esm3_structure_encoder_v0.pth "
                "--decoder esm3_structure_decoder_v0.pth --output esm3/"
            )
        },
        {0: "done", **_ERRORS},
    ),
    "repair": _epilog(
        {
            "Check all that it needs, and what is dead": (
                "foldmint-maintenance repair --store store/ --data train.parquet --dry-run"
            ),
            "By what Prometheus counted, swapped into a server": (
                "foldmint-maintenance repair --store store/ --data train.parquet --prometheus http://localhost:9090 "
                "--activate localhost:50052 --report repair.html"
            ),
        },
        {
            0: "done, also if nothing was to do",
            **_ERRORS,
            1: "an error, or something that the preflight found",
            3: "a gate failed, nothing was published",
            **_LOCKED,
            5: "a server failed, all were brought back",
        },
    ),
    "usage": _epilog(
        {
            "What servers count": "foldmint-maintenance usage --servers localhost:50052",
            "Figures for a program": "foldmint-maintenance usage --store store/ --json - | jq .dead",
        },
        {0: "done", **_ERRORS, 3: "the drift exceeds --max-psi"},
    ),
    "list_versions": _epilog(
        {"All versions": "foldmint-maintenance codebooks list --store store/"}, {0: "done", **_ERRORS}
    ),
    "show": _epilog(
        {"One version": "foldmint-maintenance codebooks show --store store/ 000002"}, {0: "done", **_ERRORS}
    ),
    "verify": _epilog(
        {"All of a store": "foldmint-maintenance codebooks verify --store store/"},
        {0: "all is well", **_ERRORS, 1: "something is damaged, or an error"},
    ),
    "activate": _epilog(
        {
            "Until all of these servers follow": (
                "foldmint-maintenance codebooks activate --store store/ 000002 --servers gpu1:50052,gpu2:50052"
            )
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "rollback": _epilog(
        {
            "Back to what was active before": "foldmint-maintenance codebooks rollback --store store/",
            "Only from this version": "foldmint-maintenance codebooks rollback --store store/ --from 000002",
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "canary": _epilog(
        {
            "On a tenth of the servers": "foldmint-maintenance codebooks canary --store store/ 000002 --share 10%",
            "End it": "foldmint-maintenance codebooks canary --store store/ --end",
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "prune": _epilog(
        {"Keep the last three": "foldmint-maintenance codebooks prune --store store/ --keep 3"},
        {0: "done", **_ERRORS, **_LOCKED},
    ),
    "import_version": _epilog(
        {"A file": "foldmint-maintenance codebooks import --store store/ --from codebook.safetensors"},
        {0: "done", **_ERRORS, **_LOCKED},
    ),
}
"""Examples and exit codes, by the name of the command's function."""
