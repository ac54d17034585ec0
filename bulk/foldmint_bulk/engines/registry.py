"""All engines, by name."""

from functools import partial
from importlib.util import find_spec

from foldmint_bulk.engines import local, ray_data
from foldmint_bulk.engines.base import Engine

ENGINES = ("local", "ray")


def find_engine(name: str, *, ray_address: str | None = None) -> Engine:
    """The engine of a name. ray_address: see `ray_data.run`. Raises ModuleNotFoundError if Ray is not installed."""
    if name == "ray" and find_spec("ray") is None:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    engines: dict[str, Engine] = {"local": local.run, "ray": partial(ray_data.run, address=ray_address)}
    return engines[name]
