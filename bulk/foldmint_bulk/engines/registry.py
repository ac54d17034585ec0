"""All engines, by name."""

from foldmint_bulk.engines import local
from foldmint_bulk.engines.base import Engine

ENGINES: dict[str, Engine] = {"local": local.run}
