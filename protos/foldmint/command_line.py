"""Conventions that the commands share: `-h`, and options in groups below their help."""

from typing import Any

import typer

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


class GroupedCommand(typer.core.TyperCommand):
    """A command whose plain help has a section for each `rich_help_panel` of its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 (their classes are private)
        """Write a section for arguments, one for each group in order of appearance, and one for other options."""
        for title, parameters in option_groups(self.get_params(ctx)).items():
            records = [record for each in parameters if (record := each.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def option_groups(parameters: list[Any]) -> dict[str, list[Any]]:
    """Parameters by the title of their section; arguments come first, options without a group last."""
    groups: dict[str, list[Any]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        default = "Arguments" if parameter.param_type_name == "argument" else "Options"
        groups.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(parameter)
    groups["Options"] = groups.pop("Options")
    return {title: members for title, members in groups.items() if members}
