"""The packages in `.reference`: ESM, and what it needs, apart from the environment."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack

from helpers.support import ROOT, missing

FOLDER = ROOT / ".reference"


@contextmanager
def reference_packages() -> Iterator[None]:
    """They can be imported inside, without warnings; where they are missing, the test says so.

    Afterwards msgpack is as it was: ESM has msgpack_numpy replace its functions, for all that the process does later.
    """
    if not (FOLDER / "esm").is_dir():
        missing("the reference, esm==3.2.1.post1,", "`make reference` installs it")
    before = dict(vars(msgpack))
    sys.path.append(str(FOLDER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(FOLDER))
        for name, value in before.items():
            setattr(msgpack, name, value)
