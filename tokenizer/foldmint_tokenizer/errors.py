"""What can go wrong in the tokenizer.

TokenizerError
├── InvalidStructure    the caller's structure or option cannot be taken
├── InvalidTokens       the caller's tokens cannot be decoded
└── ModelError          a model or codebook cannot be used, or computed nonsense
    ├── StoreLocked     another process holds the lock of a store
    └── LockLost        the lock of a store expired, or another process took it over
"""

_LONGEST = 100


def printable(text: str) -> str:
    """A text with escapes for what cannot be printed: names come from strangers, and go into messages and logs."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class TokenizerError(Exception):
    """Root of all errors that the tokenizer raises on purpose."""


class InvalidStructure(TokenizerError, ValueError):
    """A structure, or an option, that cannot be taken.

    field: what is at fault, such as `content` or `coordinates`. reason: why. chain, residue: where, if it is one
    place; the residue as its author numbers it, with its name where known, such as `MSE 52A`.
    """

    def __init__(self, field: str, reason: str, *, chain: str | None = None, residue: str | None = None) -> None:
        # Names come from strangers, and go into messages and logs.
        self.field, self.reason = field, printable(reason)
        self.chain = None if chain is None else chain[:_LONGEST]
        self.residue = None if residue is None else printable(residue[:_LONGEST])
        super().__init__(f"{field}: {self.description}")

    @property
    def description(self) -> str:
        """Where and why, without the field."""
        place = [f"chain {self.chain!r}"] if self.chain is not None else []
        place += [f"residue {self.residue}"] if self.residue is not None else []
        return f"{', '.join(place)}: {self.reason}" if place else self.reason

    def within(self, prefix: str) -> "InvalidStructure":
        """The same error, its field inside another: `within("file.")`."""
        return InvalidStructure(prefix + self.field, self.reason, chain=self.chain, residue=self.residue)


class InvalidTokens(TokenizerError, ValueError):
    """Tokens that cannot be decoded. reason: why; position: of the token at fault among those given, if it is one."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason, self.position = printable(reason), position
        super().__init__(self.reason if position is None else f"token {position}: {self.reason}")


class ModelError(TokenizerError):
    """A model, codebook or store that cannot be used, or an encoder whose result is not finite."""


class StoreLocked(ModelError):
    """A store that another process is changing. owner: the process; expires: seconds since 1970; None if not known."""

    def __init__(self, message: str, owner: object = None, expires: float | None = None) -> None:
        self.owner, self.expires = owner, expires
        super().__init__(message)


class LockLost(ModelError):
    """A lock that was held and is no more: nothing may be changed under it."""
