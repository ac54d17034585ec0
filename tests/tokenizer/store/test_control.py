"""What a store says that its servers serve: after activations, rollbacks and canaries, and after any crash."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store import control
from foldmint_tokenizer.store.control import Canary, Control, hash_of
from foldmint_tokenizer.store.storage import Files

Change = Callable[[Files], object]
PLACE = 0.47760490128695


class _Killed(Exception):
    """Stands for the end of the process."""


class _Mortal(Files):
    """Files whose process is killed before so many more changes are done."""

    def __init__(self, files: Files, lives: int) -> None:
        super().__init__(files.location)
        self.lives = lives

    def write(self, name: str, content: bytes) -> None:
        self._live()
        super().write(name, content)

    def remove(self, name: str) -> None:
        self._live()
        super().remove(name)

    def _live(self) -> None:
        if self.lives == 0:
            raise _Killed
        self.lives -= 1


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Where 000001 is active, and nothing else was."""
    found = Files(tmp_path)
    if request.param == "s3":
        found = Files(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    control.write_active(found, "000001")
    return found


def _state(files: Files) -> tuple[Control, list[str]]:
    return control.read_control(files), control.read_history(files)


def _activation(version: str) -> Change:
    return lambda files: control.activate(files, version)


def test_a_rollback_goes_back_step_by_step(files: Files) -> None:
    for version in ("000002", "000003", "000003", "000001"):
        control.activate(files, version)
    assert _state(files) == (Control("000001"), ["000001", "000002", "000003", "000001"])
    with pytest.raises(ModelError, match="codebook 000001 is active, not '000003'; it may have been rolled back"):
        control.roll_back(files, "000003")
    assert [control.roll_back(files) for _ in range(3)] == ["000003", "000002", "000001"]
    with pytest.raises(ModelError, match="no codebook was active before 000001"):
        control.roll_back(files)
    # ACTIVE as a release without HISTORY writes it.
    control.activate(files, "000002")
    control.write_active(files, "000007")
    assert control.roll_back(files) == "000002"


def test_a_canary_is_what_a_share_of_the_servers_serves(files: Files) -> None:
    names = [f"foldmint-{number}" for number in range(1000)]
    before: set[str] = set()
    for share in (0.05, 0.3, 1):
        control.write_canary(files, Canary("000002", share))
        said = control.read_control(files)
        chosen = {name for name in names if said.version_for(name) == "000002"}
        assert len(chosen) / len(names) == pytest.approx(share, abs=0.05)
        assert before <= chosen  # a larger share exchanges no server
        before = chosen
    assert {said.version_for(name) for name in set(names) - chosen} <= {"000001"}
    # The place of a name is the same in all releases.
    assert hash_of("foldmint-0") == pytest.approx(PLACE, abs=1e-12)
    # Activation makes it what all serve; of another version it goes on.
    control.activate(files, "000003")
    assert control.read_canary(files) == Canary("000002", 1)
    control.activate(files, "000002")
    assert control.read_control(files) == Control("000002")
    control.write_canary(files, Canary("000003", 0.5))
    assert control.roll_back(files) == "000003"
    assert control.read_control(files) == Control("000003")
    for wrong in (0, -1, 1.01, float("nan")):
        with pytest.raises(ModelError, match="share of a canary"):
            control.write_canary(files, Canary("000001", wrong))


CHANGES: dict[str, tuple[list[Change], Change]] = {
    "a first activation": ([], _activation("000002")),
    "an activation": ([_activation("000002")], _activation("000003")),
    "an activation of what was active before": ([_activation("000002")], _activation("000001")),
    "a rollback": ([_activation("000002"), _activation("000003")], control.roll_back),
    "a rollback to what is active twice": ([_activation("000002"), _activation("000001")], control.roll_back),
    "the activation of a canary": (
        [lambda files: control.write_canary(files, Canary("000002", 0.5))],
        _activation("000002"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_crash_between_writes_leaves_what_was_or_what_follows(files: Files, name: str) -> None:
    before, change = CHANGES[name]
    for one in before:
        one(files)
    old, crashes = _state(files), 0
    while True:
        try:
            change(_Mortal(files, crashes))
        except _Killed:
            crashes += 1
        else:
            break
        found, history = _state(files)
        if (found.active, history) == (old[0].active, old[1]):
            assert found == old[0]
            continue
        # All that can be missing is the end of a canary that is active now.
        assert found.canary is None or found.canary.version == found.active
        break
    assert crashes > 0
    wanted = found.active if (found := control.read_control(files)) else ""
    assert control.read_history(files)[-1] == wanted
    # Whoever comes next finds a store that works.
    control.activate(files, "000009")
    assert control.roll_back(files) == wanted


def test_any_changes_with_any_crashes(tmp_path: Path) -> None:
    """Against the plain list of what was active, of which a crashed change is the last step or was never done."""
    chance, files = random.Random(0), Files(tmp_path)
    control.write_active(files, "1")
    history = ["1"]
    for _ in range(400):
        version, lives = str(chance.randint(1, 4)), chance.choice([0, 1, 2, 3, 9])
        goes_back = chance.random() < 0.5 and len(history) > 1
        after = history[:-1] if goes_back else history if history[-1] == version else [*history, version]
        mortal = _Mortal(files, lives)
        try:
            control.roll_back(mortal) if goes_back else control.activate(mortal, version)
            history = after
        except _Killed:
            found = control.read_history(files)
            assert found in (history[-100:], after[-100:])
            history = after if found == after[-100:] else history
        history = history[-100:]
        assert (control.read_active(files), control.read_history(files)) == (history[-1], history)


DAMAGE: dict[str, tuple[str, bytes, str]] = {
    "an empty ACTIVE": ("ACTIVE", b"", "ACTIVE does not name a version: ''"),
    "ACTIVE that leads elsewhere": ("ACTIVE", b"../x\n", r"ACTIVE does not name a version: '\.\./x'"),
    "ACTIVE that is no text": ("ACTIVE", b"\xff\xfe", "ACTIVE cannot be read"),
    "HISTORY that is none": ("HISTORY", b"000001\n{}\n", "HISTORY does not list versions"),
    "CANARY that is no JSON": ("CANARY", b"000002 10%\n", "CANARY is not valid JSON"),
    "CANARY without a share": ("CANARY", b'{"version": "000002"}', "CANARY does not name a version and a share"),
    "CANARY with a wrong share": (
        "CANARY",
        b'{"version": "1", "share": 2}',
        "CANARY does not name a version and a share",
    ),
    "CANARY with a true share": ("CANARY", b'{"version": "1", "share": true}', "CANARY does not name a version"),
    "CANARY with a wrong version": ("CANARY", b'{"version": "..", "share": 0.5}', "CANARY does not name a version"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_makes_no_sense_is_refused_and_can_be_repaired(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path)
    control.write_active(files, "000001")
    control.activate(files, "000002")
    file, content, reason = DAMAGE[name]
    files.write(file, content)
    with pytest.raises(ModelError, match=reason):
        control.roll_back(files)
    if file != "HISTORY":
        with pytest.raises(ModelError, match=reason):
            control.read_control(files)
    if file == "CANARY":
        with pytest.raises(ModelError, match=reason):
            control.activate(files, "000003")
        assert files.read("ACTIVE") == b"000002\n"
        control.end_canary(files)
    control.activate(files, "000003")
    assert control.read_control(files) == Control("000003")
    assert control.roll_back(files) == "000002"
