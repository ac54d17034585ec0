"""A process that reads trajectories by mdtraj, whose C libraries may end it where a file is damaged.

python -m foldmint_bulk.inputs.trajectory_process

A request with a path alone is answered by the numbers of frames and atoms. One with frames is answered by their
coordinates, some frames at a time, then by an empty message. An error is the last answer to a request.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from foldmint_bulk.processes import connect_parent, packed, unpacked

_CHUNK = 2**24  # bytes of coordinates in memory
_DECIMALS = 5  # of Å; what conversion from nanometers adds is beyond them


def main() -> None:
    """Answer until the requests end."""
    requests, answers = connect_parent()
    while True:
        try:
            request = unpacked(requests.recv_bytes())
        except EOFError:
            return
        try:
            for answer in _answers(request):
                answers.send_bytes(packed(answer))
        except Exception as error:  # noqa: BLE001 (whatever the library raises)
            answers.send_bytes(packed({"error": str(error) or type(error).__name__}))


def _answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with _opened(request["path"]) as file:
        frames = len(file)
        if "start" not in request:
            yield {"frames": frames, "atoms": file.read(n_frames=1)[0].shape[1] if frames else 0}
            return
        stop = request["stop"] or frames
        if stop > frames:
            raise ValueError(f"it has {frames} frames, {stop} when the job was planned")
        yield from _frames(file, range(request["start"], stop, request["stride"]), request["atoms"])
        if stop == frames and (promised := _promised(request["path"])) > frames:
            raise ValueError(f"it is cut off: it has {frames} of {promised} frames")
    yield {}


def _frames(file: Any, numbers: range, atoms: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 (of mdtraj, and an array)
    """Coordinates of frames, (frames, atoms, 3), Å."""
    scale = {"nanometers": 10.0, "angstroms": 1.0}[file.distance_unit]
    most, at, damaged = 1, 0, False
    while at < len(numbers):
        part = numbers[at : at + most]
        if damaged or file.tell() != part.start:
            file.seek(part.start)
        try:
            positions = file.read(n_frames=len(part))[0]
            if len(positions) != len(part):
                raise EOFError(f"frame {part.start} cannot be read: the file is damaged or cut off")
        except Exception:
            if len(part) == 1:
                raise
            most, damaged = 1, True  # those before the damage, one by one
            continue
        if numbers.step == 1 and not damaged:
            most = max(1, _CHUNK // max(1, positions[0].nbytes))
        own = np.round(positions[:, atoms].astype(np.float64) * scale, _DECIMALS)
        yield {"first": part.start, "positions": own.astype(np.float32)}
        at += len(part)


def _opened(path: str) -> Any:  # noqa: ANN401 (classes without types)
    from mdtraj import formats

    kinds = {
        ".xtc": formats.XTCTrajectoryFile,
        ".trr": formats.TRRTrajectoryFile,
        ".dcd": formats.DCDTrajectoryFile,
    }
    return kinds[Path(path).suffix.lower()](path)


def _promised(path: str) -> int:
    """How many frames a file says that it has; 0 if it does not."""
    with Path(path).open("rb") as stream:
        head = stream.read(12)
    return int.from_bytes(head[8:], "little") if head.startswith(b"\x54\0\0\0CORD") else 0


if __name__ == "__main__":
    main()
