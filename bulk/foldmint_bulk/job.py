"""A job: its model, options and inputs, written once to job.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, get_args

from foldmint_bulk.errors import JobDiffers, OutputError
from foldmint_bulk.inputs.base import InputOptions
from foldmint_bulk.inputs.files import refuse_credentials
from foldmint_bulk.storage import create, open_output, read
from foldmint_tokenizer.structure.options import Reading

FORMAT = 1
"""The format of job.json that this software reads and writes."""

ASSIGNMENTS = ("independent", "anchored", "tracking")
FILE = "job.json"


@dataclass(frozen=True)
class ModelIdentity:
    """A model and the version of its codebook; digests are SHA-256.

    location: of its store, as `foldmint_tokenizer.store.load_model` takes it; None: the embedded model. motions:
    whether its codes encode motions.
    """

    location: str | None
    name: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    motions: bool = False


@dataclass(frozen=True)
class JobOptions:
    """What decides a job's output, besides its model and inputs.

    assignment: how codes are chosen. reading: which residues of a file count. unit_structures: structures a unit,
    about. inputs: how to read inputs that leave a choice. Raises ValueError for invalid values.
    """

    assignment: str = "independent"
    reading: Reading = "all"
    unit_structures: int = 10_000
    inputs: InputOptions = field(default_factory=InputOptions)

    def __post_init__(self) -> None:
        if self.assignment not in ASSIGNMENTS:
            raise ValueError(f"assignment must be one of {', '.join(ASSIGNMENTS)}, not {self.assignment!r}")
        if self.reading not in get_args(Reading):
            raise ValueError(f"reading must be one of {', '.join(get_args(Reading))}, not {self.reading!r}")
        if self.unit_structures < 1:
            raise ValueError(f"unit_structures must be positive, not {self.unit_structures}")
        # Topologies are read by the same rules as files.
        object.__setattr__(self, "inputs", replace(self.inputs, reading=self.reading))


@dataclass(frozen=True)
class Job:
    """A job. out: location of its output, a path or a URL. inputs: as they were given."""

    out: str
    model: ModelIdentity
    options: JobOptions
    inputs: tuple[str, ...]

    @classmethod
    def load(cls, out: str) -> Self:
        """The job of an output. Raises FileNotFoundError if there is none; OutputError if it cannot be read."""
        text = read(open_output(out), FILE)
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError(f"format {fields['format']!r}; this software reads {FORMAT}")
            options = dict(fields["options"])
            inputs = InputOptions(**options.pop("inputs"))
            return cls(
                out,
                ModelIdentity(**fields["model"]),
                JobOptions(**options, inputs=inputs),
                tuple(map(str, fields["inputs"])),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{out}/{FILE} is invalid: {error}") from error

    def begin(self) -> "Job":
        """Write job.json, or go on with the job that is there, which has the same model, options and inputs.

        Raises JobDiffers if it has others; InvalidInput for URLs with credentials, which would be written; OutputError
        if the output cannot be read or written.
        """
        for url in (*self.inputs, self.options.inputs.topology):
            refuse_credentials(url)
        try:
            create(open_output(self.out), FILE, (json.dumps(self._fields(), indent=2) + "\n").encode())
        except FileExistsError:
            found = Job.load(self.out)
            if differences := self.differences(found):
                raise JobDiffers(
                    f"{self.out} belongs to another job: {'; '.join(differences)}. Give the same arguments to go on "
                    "with it, or another output"
                ) from None
            return replace(found, model=replace(found.model, location=self.model.location))
        return self

    def differences(self, found: "Job") -> list[str]:
        """What a job that was found has otherwise, in words; the store's location does not matter, digests decide."""
        own, other = _comparable(self), _comparable(found)
        return [
            f"{name} is {other.get(name)!r} there, {own.get(name)!r} here"
            for name in own
            if own[name] != other.get(name)
        ]

    def _fields(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "model": asdict(self.model),
            "options": asdict(self.options),
            "inputs": list(self.inputs),
        }


def find_job(out: str) -> Job | None:
    """The job of an output, None if it has none. Raises OutputError if it cannot be read."""
    try:
        return Job.load(out)
    except FileNotFoundError:
        return None


def _comparable(job: Job) -> dict[str, object]:
    model, options = asdict(job.model), asdict(job.options)
    del model["location"], model["motions"]
    inputs: dict[str, object] = options.pop("inputs")
    return {**model, **options, **inputs, "inputs": list(job.inputs)}


def identify(location: str | None, version: str | None) -> "tuple[ModelIdentity, Reading]":
    """A store's model, with a version of its codebook, by default the active one; and the model's own reading.

    The weights are not read. Raises ModelError if the store cannot be read.
    """
    # torch, which a wrong option should not have to wait for.
    from foldmint_tokenizer.errors import ModelError
    from foldmint_tokenizer.store.model_store import Store

    store = Store(location)
    about = store.about()
    chosen = store.active() if version is None else version
    manifest = store.manifest(chosen)
    try:
        identity = ModelIdentity(
            location,
            str(about["name"]),
            str(about["encoder_sha256"]),
            chosen,
            str(manifest["codebook_sha256"]),
            "motion" in about,
        )
    except KeyError as error:
        raise ModelError(f"{store.files}: {error} is missing") from error
    return identity, about.get("reading", "all")


def slice_of(numbers: Sequence[int], index: int, count: int) -> Sequence[int]:
    """The share of a slice, from 0 to count - 1: a contiguous part, so that few slices share a folder of records."""
    return numbers[len(numbers) * index // count : len(numbers) * (index + 1) // count]
