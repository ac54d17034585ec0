"""The version of Foldmint."""


def installed_version() -> str:
    """The version of Foldmint installed; 0+source when it runs from a source tree."""
    # Imported here: it takes longer than the rest of the client's import.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("foldmint")
    except PackageNotFoundError:
        return "0+source"
