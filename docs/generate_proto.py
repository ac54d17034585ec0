"""Writes docs/proto.md, the reference of the contract, from the comments of the .proto files.

.venv/bin/python docs/generate_proto.py
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

PAGE = Path(__file__).with_name("proto.md")
PROTOS = Path(__file__).resolve().parent.parent / "protos"
FILES = ("foldmint/v1/tokenizer.proto", "foldmint/v1/codebook.proto")

_HEAD = """\
# gRPC API

<!-- Written by docs/generate_proto.py from the comments of the .proto files; change it there. -->

The gRPC services of the package `foldmint.v1`: [tokenizer.proto](../protos/foldmint/v1/tokenizer.proto) for callers,
and [codebook.proto](../protos/foldmint/v1/codebook.proto) for operators, on a separate listener. The API is backward
compatible: fields and methods are added, never changed or removed. Servers also support reflection: `grpcurl -plaintext
localhost:50051 describe foldmint.v1.TokenizerService`.
"""

_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}

# Numbers of fields in FileDescriptorProto, DescriptorProto, and so on, by which comments are found.
_MESSAGES, _ENUMS, _SERVICES, _SYNTAX = 4, 5, 6, 12
_FIELDS = _METHODS = _VALUES = 2
_ONEOFS = 8

Comments = dict[tuple[int, ...], str]


def page() -> str:
    """The whole page, in Markdown. Raises RuntimeError if protoc fails, ValueError for what has no comment."""
    parts = [_HEAD]
    for file in _described():
        comments = {tuple(where.path): where.leading_comments for where in file.source_code_info.location}
        parts += [f"## {Path(file.name).name}\n", *_paragraphs(comments, (_SYNTAX,))]
        for at, service in enumerate(file.service):
            place = (_SERVICES, at)
            parts += [f"### service {service.name}\n", *_paragraphs(comments, place)]
            for number, method in enumerate(service.method):
                parts += [f"#### {method.name}\n", f"{_signature(method)}\n"]
                parts += _paragraphs(comments, (*place, _METHODS, number))
        for at, message in enumerate(file.message_type):
            parts += [f"### {message.name}\n", *_paragraphs(comments, (_MESSAGES, at))]
            parts += _fields(message, comments, (_MESSAGES, at))
        for at, enum in enumerate(file.enum_type):
            parts += [f"### {enum.name}\n", *_paragraphs(comments, (_ENUMS, at))]
            parts += _values(enum, comments, (_ENUMS, at))
    return "\n".join(parts).rstrip() + "\n"


def _described() -> Sequence[FileDescriptorProto]:
    """The files as protoc reads them, comments included."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "set.binpb")
        arguments = ["protoc", f"--proto_path={PROTOS}", f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}"]
        arguments += ["--include_source_info", f"--descriptor_set_out={out}", *FILES]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc failed; its message is above")
        return FileDescriptorSet.FromString(out.read_bytes()).file


def _signature(method: MethodDescriptorProto) -> str:
    asked = f"{'stream ' * method.client_streaming}{_linked(method.input_type)}"
    answered = f"{'stream ' * method.server_streaming}{_linked(method.output_type)}"
    return f"Takes {asked}, returns {answered}."


def _fields(message: DescriptorProto, comments: Comments, place: tuple[int, ...]) -> Iterator[str]:
    if not message.field:
        yield "No fields.\n"
        return
    yield "| field | type | meaning |\n|---|---|---|"
    for at, field in enumerate(message.field):
        meaning = _text(comments, (*place, _FIELDS, at))
        # protoc keeps a oneof for each optional field, which nobody wrote.
        if field.HasField("oneof_index") and not field.proto3_optional:
            others = _text(comments, (*place, _ONEOFS, field.oneof_index)).rstrip(".")
            meaning = f"{meaning} (One of `{message.oneof_decl[field.oneof_index].name}`: {others}.)"
        repeated = "repeated " * (field.label == FieldDescriptorProto.LABEL_REPEATED)
        repeated += "optional " * field.proto3_optional
        kind = f"`{_SCALARS[field.type]}`" if field.type in _SCALARS else _linked(field.type_name)
        yield f"| `{field.name}` = {field.number} | {repeated}{kind} | {_cell(meaning)} |"
    yield ""


def _values(enum: EnumDescriptorProto, comments: Comments, place: tuple[int, ...]) -> Iterator[str]:
    yield "| value | meaning |\n|---|---|"
    for at, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {_cell(_text(comments, (*place, _VALUES, at)))} |"
    yield ""


def _linked(name: str) -> str:
    """A message's or enum's name, leading to its section if it has one."""
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(".foldmint.") else f"`{name.lstrip('.')}`"


def _paragraphs(comments: Comments, place: tuple[int, ...]) -> Iterator[str]:
    for paragraph in _comment(comments, place).split("\n\n"):
        yield re.sub(r"\s*\n\s*", "\n", paragraph.strip()).replace("<", "&lt;") + "\n"


def _text(comments: Comments, place: tuple[int, ...]) -> str:
    return " ".join(_comment(comments, place).split())


def _comment(comments: Comments, place: tuple[int, ...]) -> str:
    text = re.sub(r"(?m)^ ", "", comments.get(place, "")).strip()
    if not text:
        raise ValueError(f"{place} of a .proto file has no comment")
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
