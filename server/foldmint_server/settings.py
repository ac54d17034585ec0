"""The server's settings: from the command line, the environment (`FOLDMINT_…`), and a TOML file, in this order."""

from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from foldmint_server.setting_groups import (
    AuthSettings,
    CodebookSettings,
    LimitSettings,
    ListenSettings,
    ModelSettings,
    ObservabilitySettings,
    SchedulingSettings,
    TlsSettings,
)


class Settings(
    ObservabilitySettings,
    TlsSettings,
    AuthSettings,
    CodebookSettings,
    LimitSettings,
    SchedulingSettings,
    ListenSettings,
    ModelSettings,
    BaseSettings,
):
    """All settings, of all groups. Sizes are in residues or bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="FOLDMINT_", extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="after")
    def _one_structure_fits(self) -> Self:
        if self.max_queued_residues < self.max_residues:
            raise ValueError("max_queued_residues must be at least max_residues, or the largest structure never fits")
        if self.max_queued_detokenize_residues < self.max_detokenize_residues:
            raise ValueError(
                "max_queued_detokenize_residues must be at least max_detokenize_residues, or the largest never fits"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic names it)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then the file that `read_settings` names."""
        sources = (init_settings, env_settings)
        return (*sources, TomlConfigSettingsSource(settings_cls)) if cls.model_config.get("toml_file") else sources


def read_settings(given: dict[str, object], file: Path | None) -> Settings:
    """Settings from what the command line gave, the environment and a TOML file.

    Raises pydantic's ValidationError for values that do not fit, FileNotFoundError for a missing file, and
    tomllib.TOMLDecodeError for one that is not TOML.
    """
    if file is None:
        return Settings(**given)  # type: ignore[arg-type]
    if not file.is_file():
        raise FileNotFoundError(f"settings file not found: {file}")

    class FromFile(Settings):
        model_config = SettingsConfigDict(**{**Settings.model_config, "toml_file": file})

    return FromFile(**given)  # type: ignore[arg-type]
