"""The files of a model store, below its location.

model.json                              name, sizes, digests of encoder and decoder; the lever arm, if the codes are
                                        motions; `reading`, if the model reads files otherwise than with `all`
encoder.safetensors
decoder.safetensors                     if the model has a decoder
codebooks/000001/codebook.safetensors   embeddings, N, z_avg; backbone fragments (`windows`), if they were measured
codebooks/000001/decoder.safetensors    `codes` and `rows`: decoder inputs of codes whose meaning differs from that in
                                        the model's own decoder, if there are any
codebooks/000001/manifest.json          digests of the files and of the encoder, and the version's origin
ACTIVE                                  the active version
HISTORY                                 the versions that were active, one a line, the last one active; once there are
                                        several
CANARY                                  a version that a share of the servers serves, if there is one
LOCK/                                   the process that changes the store
LAST                                    the highest version number ever used, written from the second version on

A version never changes once written. Its manifest is written last: without one, the version is incomplete.
"""

FORMAT = 1
"""The format of model.json that this software reads and writes."""

MODEL = "model.json"
ENCODER = "encoder.safetensors"
DECODER = "decoder.safetensors"
CODEBOOKS = "codebooks"
ACTIVE = "ACTIVE"
HISTORY = "HISTORY"
CANARY = "CANARY"
LAST = "LAST"


def manifest_of(version: str) -> str:
    """The name of a version's manifest."""
    return f"{CODEBOOKS}/{version}/manifest.json"


def codebook_of(version: str) -> str:
    """The name of the file with a version's codebook."""
    return f"{CODEBOOKS}/{version}/codebook.safetensors"


def decoder_rows_of(version: str) -> str:
    """The name of the file with a version's decoder rows."""
    return f"{CODEBOOKS}/{version}/decoder.safetensors"


def is_version(name: str) -> bool:
    """Whether a name is well-formed as that of a version: ASCII letters and digits."""
    return name.isascii() and name.isalnum()
