"""A process that decompresses Foldcomp's structures: its library ends the process that gives it a damaged one.

python -m foldmint_client.io.foldcomp_worker

Each structure that comes by standard input is answered on standard output: its length in 4 bytes and its bytes, each
way; an answer of length 0 is a structure that cannot be decompressed.
"""

import os
import struct
import sys

LENGTH = struct.Struct("<I")


def main() -> None:
    """Answer until standard input ends."""
    import foldcomp

    # What the library prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while head := sys.stdin.buffer.read(LENGTH.size):
        content = sys.stdin.buffer.read(LENGTH.unpack(head)[0])
        try:
            answer = foldcomp.decompress(content)[1].encode()
        except Exception:  # noqa: BLE001 (whatever it is, the structure has no answer)
            answer = b""
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
