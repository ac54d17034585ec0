"""Blocks of Markdown, run as a reader would: page by page, in order, in one shell, in a copy of the repository.

What a block needs that is not here, an HTML comment on the line before it says:

    <!-- test: needs docker -->                  not run; one of NEEDS
    <!-- test: background until COMMAND -->      runs beside all that follows, which waits until COMMAND succeeds
    <!-- test: retried -->                       its command is run again until it prints something
    <!-- test: with THING -->                    the test brings THING, one of PROPS

Lines of a console block that begin with `$ ` are commands, and must succeed; those after one, if there are any, are
what it prints, where `...` stands for anything in a line, and a line of it for any lines. Python is run by .venv's.
TOML whose first line is `# NAME.toml` is written to that file.

The shell has a network of its own, so that servers listen where the page says, whatever else runs on the machine.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.support import ROOT, missing

NEEDS = ("days of Prometheus", "docker", "gpu", "hours", "kubernetes", "ray", "root", "servers", "sets")
PROPS = ("small files of ESM3's form",)
RUN = ("console", "python", "toml")

_FENCE = re.compile(r"(?ms)^(?:<!-- test: (?P<note>[^\n]*?) -->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$")
_NOTE = re.compile(r"<!--\s*test:")
_SECONDS = 540


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, its text, and the comment before it, empty if there is none."""

    page: str
    line: int
    language: str
    text: str
    note: str

    @property
    def need(self) -> str:
        """What it cannot be run without; empty if it is run."""
        return self.note.removeprefix("needs ") if self.note.startswith("needs ") else ""

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Of a console block: each command, and what the page shows of its output."""
        parts = re.split(r"(?m)^\$ ", self.text)
        if parts[0].strip():
            raise ValueError(f"{self}: text before the first command")
        return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts[1:])]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks. Raises ValueError for a comment that is not understood, or not before a block."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(name, line, match["language"].strip(), match["text"], match["note"] or ""))
    for block in found:
        if block.note and not _known(block.note):
            raise ValueError(f"{block}: what is {block.note!r}?")
    if len(_NOTE.findall(text)) != sum(bool(block.note) for block in found):
        raise ValueError(f"{name}: a comment for the test that no block follows")
    return found


def _known(note: str) -> bool:
    kind, _, rest = note.partition(" ")
    what = {"needs": rest in NEEDS, "with": rest in PROPS, "retried": not rest}
    return what.get(kind, bool(re.fullmatch("background until .+", note)))


def copy_of_repository(folder: Path) -> None:
    """What git knows of the work tree, and its environment, ready for make."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    environment = folder / ".venv"
    environment.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (environment / part).symlink_to(Path(sys.prefix, part))
    for stamp in ("server.stamp", "dev.stamp"):  # newer than all that they come from: make installs nothing
        (environment / stamp).touch()


@dataclass(frozen=True)
class Outcome:
    """What a step printed, and how it ended; code is None if it was not reached."""

    printed: str
    code: int | None


def run_blocks(blocks: Sequence[Block], folder: Path) -> list[str]:
    """Run blocks in a copy of the repository, in one shell. Returns what went wrong, each with its place."""
    steps = [*_steps([block for block in blocks if not block.need and block.language in RUN])]
    outputs = folder.with_name(folder.name + "-outputs")
    outputs.mkdir()
    script = _HEAD + "".join(step.script(outputs / str(number)) for number, step in enumerate(steps))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOLDMINT_", "MAKE", "MFLAGS"))}
    # The page itself switches the environment on, or names its programs by path.
    path = [part for part in kept["PATH"].split(os.pathsep) if Path(part) != Path(sys.prefix, "bin")]
    kept |= {"PATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    with (outputs / "log").open("w") as log:
        subprocess.run(
            [*_own_network(), "bash", "-c", script],
            cwd=folder,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    wrong = [fault for number, step in enumerate(steps) for fault in step.faults(_outcome(outputs / str(number)))]
    return [*wrong, (outputs / "log").read_text()] if wrong else []


def _own_network() -> list[str]:
    """The command that gives another a network of its own, in which nothing listens yet, and ends all that it began."""
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", *([] if os.geteuid() == 0 else ["-r"])]
    if (
        shutil.which("unshare") is None
        or shutil.which("ip") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0
    ):
        missing("a network namespace", "it takes Linux, util-linux and iproute2, and the right to make one")
    return command


_HEAD = """
set -m -o pipefail
ip link set lo up
servers=()
trap 'for one in "${servers[@]}"; do kill -TERM -- "-$one"; wait "$one"; done 2>/dev/null' EXIT
"""


@dataclass(frozen=True)
class _Step:
    block: Block
    command: str
    shown: str

    def script(self, out: Path) -> str:
        """Bash that runs the command, and leaves output and exit code in OUT and OUT.code."""
        code = f"echo $? > {out}.code\n"
        if self.block.note.startswith("background until "):
            ready = self.block.note.removeprefix("background until ")
            return f"""
{self.command} > {out} 2>&1 &
servers+=($!)
for try in {{1..600}}; do {ready} > /dev/null 2>&1 && break; kill -0 "${{servers[-1]}}" || exit 1; sleep 0.1; done
{ready} > {out}.ready 2>&1
{code}test "$(cat {out}.code)" = 0 || exit 1
"""
        once = f"{{\n{self.command}\n}} > {out} 2>&1\n{code}"
        if self.block.note == "retried":
            once = f"for try in {{1..300}}; do\n{once}grep -q . {out} && break\nsleep 0.2\ndone\n"
        return f'\n{once}test "$(cat {out}.code)" = 0 || exit 1\n'

    def faults(self, outcome: Outcome) -> Iterator[str]:
        """What is wrong with what the command did."""
        if outcome.code != 0:
            ended = "was not reached" if outcome.code is None else f"ended with {outcome.code}"
            yield f"{self.block}: {self.command!r} {ended}\n{outcome.printed}"
        elif self.shown.strip() and not matches(self.shown, outcome.printed):
            yield f"{self.block}: {self.command!r} printed\n{outcome.printed}and the page shows\n{self.shown}"


def _steps(blocks: Sequence[Block]) -> Iterator[_Step]:
    for block in blocks:
        if block.language == "console":
            for command, shown in block.commands:
                yield _Step(block, command, shown)
        elif block.language == "python":
            yield _Step(block, f".venv/bin/python - <<'THE-END'\n{block.text}THE-END", "")
        else:
            name = re.match(r"# ([\w.-]+\.toml)\b", block.text)
            if name is not None:
                yield _Step(block, f"cat > {shlex.quote(name[1])} <<'THE-END'\n{block.text}THE-END", "")


def _outcome(out: Path) -> Outcome:
    printed = out.read_text(errors="replace") if out.exists() else ""
    code = out.with_name(out.name + ".code")
    return Outcome(printed, int(code.read_text()) if code.exists() else None)


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; spaces in a row count as one."""
    pattern = ""
    for line in shown.strip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r".*".join(map(re.escape, _squeezed(line).split("..."))) + r"\n"
    lines = "".join(f"{_squeezed(line)}\n" for line in printed.strip().splitlines())
    return re.fullmatch(pattern, lines) is not None


def _squeezed(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()
