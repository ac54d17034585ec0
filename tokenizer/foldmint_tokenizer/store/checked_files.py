"""Reads and writes text, JSON and tensors of a store, with digests checked; every failure is a ModelError."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store.storage import Files


def list_names(files: Files, folder: str) -> list[str]:
    """The names directly in a folder, sorted; empty if there is no such folder."""
    try:
        return files.names(folder)
    except OSError as error:
        raise ModelError(str(error)) from error


def read_text(files: Files, name: str) -> str:
    """A file's text, UTF-8."""
    try:
        return files.read(name).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{files.path(name)} cannot be read: {error}") from error


def read_json(files: Files, name: str) -> dict[str, Any]:
    """A file's JSON object."""
    try:
        value = json.loads(read_text(files, name))
    except ValueError as error:
        raise ModelError(f"{files.path(name)} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{files.path(name)} does not contain a JSON object")
    return value


def read_tensors(files: Files, name: str, digest: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. digest: the SHA-256 that the file must have."""
    where = files.path(name)
    try:
        content = files.read(name)
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != digest:
        raise ModelError(f"{where} is damaged: its SHA-256 is {actual}, expected {digest}")
    try:
        return load(content)
    except SafetensorError as error:
        raise ModelError(f"{where} is not a valid safetensors file: {error}") from error


def write(files: Files, name: str, content: bytes) -> None:
    """Write a file, or replace it."""
    try:
        files.write(name, content)
    except OSError as error:
        raise ModelError(f"{files.path(name)} cannot be written: {error}") from error


def create(files: Files, name: str, content: bytes) -> None:
    """Write a file that must not exist yet."""
    try:
        files.create(name, content)
    except FileExistsError as error:
        raise ModelError(f"{files.path(name)}: another process has just written it") from error
    except OSError as error:
        raise ModelError(f"{files.path(name)} cannot be written: {error}") from error


def create_json(files: Files, name: str, value: Mapping[str, object]) -> None:
    """Write a JSON object to a file that must not exist yet."""
    create(files, name, (json.dumps(value, indent=2) + "\n").encode())


def create_tensors(files: Files, name: str, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a safetensors file that must not exist yet, and return the file's SHA-256."""
    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    create(files, name, content)
    return hashlib.sha256(content).hexdigest()
