"""What stands in the help of the commands: groups of options, examples and exit codes."""

from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand

from foldmint.command_line import as_typed, epilog, help_record, plain_errors

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
    **dict.fromkeys(("as_json", "json_file", "report", "metrics_file", "pushgateway", "page", "plot", "counts"), _MADE),
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
            record = help_record(parameter, ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else GROUPS.get(str(parameter.name))
                sections.setdefault(own or "Options", []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse what was typed."""
        if any(each.name == "json_file" for each in self.params):
            args = _without_json_file(args)
        with plain_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run it; what a config says of a setting is said of the option."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = as_typed(error.message, {str(each.name): max(each.opts, key=len) for each in self.params})
            raise


def _without_json_file(args: list[str]) -> list[str]:
    """Arguments in which `--json FILE`, as it was until 0.1, is `--json-file FILE`; warns about it.

    What follows `--json` is taken for a file if it is - or has a dot or slash, as no version of a codebook has.
    """
    found = list(args)
    for place, word in enumerate(found):
        if word == "--":
            break
        following = found[place + 1] if place + 1 < len(found) else ""
        if word.startswith("--json="):
            found[place] = f"--json-file={word.removeprefix('--json=')}"
        elif word == "--json" and (following == "-" or (not following.startswith("-") and set(following) & set("./"))):
            found[place] = "--json-file"
        if found[place] != word:
            typer.echo("warning: --json FILE is deprecated: use --json, or --json-file FILE", err=True)
    return found


_ERRORS = {1: "an error, with its reason", 2: "a wrong option"}
_LOCKED = {4: "another run holds the store's lock", 130: "stopped; the store is whole"}

_FOLLOWED = {5: "the store says so, but a server does not follow, and why"}

EPILOGS: Mapping[str, str] = {
    "init": epilog(
        {
            "A store of the default model": "foldmint-maintenance init --store store/",
            "In S3": "foldmint-maintenance init --store s3://bucket/store",
        },
        {0: "done, or it was a store already", **_ERRORS, **_LOCKED},
    ),
    "ingest": epilog(
        {"A folder of structure files": "foldmint-maintenance ingest structures/ --output set.parquet"},
        {0: "done", **_ERRORS},
    ),
    "corpus": epilog(
        {"The embedded models' sets": "foldmint-maintenance corpus --output data/"}, {0: "done", **_ERRORS}
    ),
    "train": epilog(
        {
            "The default recipe": "foldmint-maintenance train --data train.parquet --output job/",
            "Another learning rate": (
                "foldmint-maintenance train --data train.parquet --output job/ --set encoder.learning_rate=1e-3"
            ),
        },
        {0: "done", **_ERRORS, 130: "stopped; the same command goes on from there"},
    ),
    "curves": epilog(
        {"A stage": "foldmint-maintenance curves job/encoder/log.csv --output curves.svg"}, {0: "done", **_ERRORS}
    ),
    "evaluate": epilog(
        {
            "The default model": "foldmint-maintenance evaluate --data val.parquet",
            "A sample, as a page": "foldmint-maintenance evaluate --data val.parquet --chains 100 --page page.html",
        },
        {0: "done", **_ERRORS},
    ),
    "import_esm3": epilog(
        {
            "Encoder and decoder": (
                "foldmint-maintenance import-esm3 --encoder esm3_structure_encoder_v0.pth "
                "--decoder esm3_structure_decoder_v0.pth --output esm3/"
            )
        },
        {0: "done", **_ERRORS},
    ),
    "repair": epilog(
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
    "usage": epilog(
        {
            "What servers count": "foldmint-maintenance usage --servers localhost:50052",
            "Figures for a program": "foldmint-maintenance usage --store store/ --json | jq .dead",
        },
        {0: "done", **_ERRORS, 3: "the drift exceeds --max-psi"},
    ),
    "list_versions": epilog(
        {"All versions": "foldmint-maintenance codebooks list --store store/"}, {0: "done", **_ERRORS}
    ),
    "show": epilog(
        {"One version": "foldmint-maintenance codebooks show --store store/ 000002"}, {0: "done", **_ERRORS}
    ),
    "verify": epilog(
        {"All of a store": "foldmint-maintenance codebooks verify --store store/"},
        {0: "all is well", **_ERRORS, 1: "something is damaged, or an error"},
    ),
    "activate": epilog(
        {
            "Until all of these servers follow": (
                "foldmint-maintenance codebooks activate --store store/ 000002 --servers gpu1:50052,gpu2:50052"
            )
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "rollback": epilog(
        {
            "Back to what was active before": "foldmint-maintenance codebooks rollback --store store/",
            "Only from this version": "foldmint-maintenance codebooks rollback --store store/ --from 000002",
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "canary": epilog(
        {
            "On a tenth of the servers": "foldmint-maintenance codebooks canary --store store/ 000002 --share 10%",
            "End it": "foldmint-maintenance codebooks canary --store store/ --end",
        },
        {0: "done, and all --servers follow", **_ERRORS, 1: "an error, nothing was changed", **_LOCKED, **_FOLLOWED},
    ),
    "prune": epilog(
        {"Keep the last three": "foldmint-maintenance codebooks prune --store store/ --keep 3"},
        {0: "done", **_ERRORS, **_LOCKED},
    ),
    "import_version": epilog(
        {"A file": "foldmint-maintenance codebooks import --store store/ --from codebook.safetensors"},
        {0: "done", **_ERRORS, **_LOCKED},
    ),
}
"""Examples and exit codes, by the name of the command's function."""
