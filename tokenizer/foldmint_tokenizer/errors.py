"""The errors of the tokenizer.

TokenizerError
├── InvalidStructure    invalid structure or option
├── InvalidTokens       tokens that cannot be decoded
├── ParserKilled        a structure whose child process, which read it, was ended
└── ModelError          unusable model or codebook, or a result that is not finite
    ├── StoreLocked     another process holds the lock of a store
    └── LockLost        the lock of a store expired, or another process took it over
"""

_LONGEST = 100
_LONGEST_REASON = 1_000


def printable(text: str) -> str:
    """The text with unprintable characters escaped: untrusted names go into messages and logs."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _bounded(reason: str) -> str:
    """A reason, printable and of limited length: it may quote the input."""
    reason = printable(reason[: _LONGEST_REASON + 1])
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


class TokenizerError(Exception):
    """Base class of the errors that the tokenizer raises deliberately."""


class InvalidStructure(TokenizerError, ValueError):
    """An invalid structure or option.

    field: the field at fault, such as `content` or `coordinates`. reason: the cause. chain, residue: the place, if
    there is a single one; the residue with its author's number, and its name where known, such as `MSE 52A`.
    """

    def __init__(self, field: str, reason: str, *, chain: str | None = None, residue: str | None = None) -> None:
        # Untrusted names go into messages and logs.
        self.field, self.reason = field, _bounded(reason)
        self.chain = None if chain is None else chain[:_LONGEST]
        self.residue = None if residue is None else printable(residue[:_LONGEST])
        super().__init__(f"{field}: {self.description}")

    @property
    def description(self) -> str:
        """Place and reason, without the field."""
        place = [f"chain {self.chain!r}"] if self.chain is not None else []
        place += [f"residue {self.residue}"] if self.residue is not None else []
        return f"{', '.join(place)}: {self.reason}" if place else self.reason

    def within(self, prefix: str) -> "InvalidStructure":
        """A copy of the error with a prefix before its field, such as `within("file.")`."""
        return InvalidStructure(prefix + self.field, self.reason, chain=self.chain, residue=self.residue)


class InvalidTokens(TokenizerError, ValueError):
    """Tokens that cannot be decoded.

    reason: the cause. position: index of the token at fault among those passed in, if there is a single one.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        self.reason, self.position = _bounded(reason), position
        super().__init__(self.reason if position is None else f"token {position}: {self.reason}")


class ParserKilled(TokenizerError):
    """A structure that was not read, since the child process that read it was ended.

    limit: whether by a limit of time or memory; otherwise it crashed, or somebody ended it.
    """

    def __init__(self, reason: str, *, limit: bool = False) -> None:
        self.limit = limit
        super().__init__(reason)


class ModelError(TokenizerError):
    """An unusable model, codebook or store, or an encoder or decoder whose result is not finite."""


class StoreLocked(ModelError):
    """A store that another process is changing. owner: the process; expires: seconds since 1970; None if not known."""

    def __init__(self, message: str, owner: object = None, expires: float | None = None) -> None:
        self.owner, self.expires = owner, expires
        super().__init__(message)


class LockLost(ModelError):
    """The lock of a store expired or was taken over: nothing may be changed under it."""
