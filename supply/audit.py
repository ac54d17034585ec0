"""Ask for known vulnerabilities of all that the image installs, and say so where nobody can tell: `make audit`.

Exits 0 if each package was looked up and none has one, 1 if one has, and 75 if none is known but some package could not
be looked up: no advisory service was reached, or it did not know the package. pip-audit calls that "no known
vulnerabilities" too. Advisories that supply/accepted.txt names, `ID REASON` a line, are told and fail nothing.
`--osv-url URL` asks an OSV service of one's own instead of PyPI and osv.dev.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SUPPLY = Path(__file__).resolve().parent
LOCKS = ("torch-cpu.txt", "cpu.txt", "cu130.txt", "build.txt")
# Arguments of pip-audit. Asked in this order, until each package was found.
SERVICES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
UNKNOWN = 75
_ID = re.compile(r"[A-Z]+-[\w-]+")


def locked(*locks: Path) -> dict[str, str]:
    """Name -> version of what locks hold; advisories know no local versions, such as 2.13.0+cpu."""
    pins = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s+]+)", re.MULTILINE)
    return {name: version for lock in locks for name, version in pins.findall(lock.read_text(encoding="utf-8"))}


def accepted(path: Path) -> dict[str, str]:
    """Advisory -> why it is lived with. Raises ValueError for one without a reason."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        name, _, reason = line.partition(" ")
        if not _ID.fullmatch(name) or not reason.strip():
            raise ValueError(f"{path}: {line!r} is not of the form `ID REASON`")
        found[name] = reason.strip()
    return found


def ask(packages: dict[str, str], service: tuple[str, ...]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Those that the service knows, with their advisories; and those that it does not, with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "packages.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--disable-pip", "--no-deps"]
        command += [*service, "--format", "json", "--progress-spinner", "off"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(answer.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {}, dict.fromkeys(packages, f"{service[-1]}: {reason}")
    known = {one["name"]: [_advisory(two) for two in one["vulns"]] for one in found if "vulns" in one}
    return known, {name: f"{service[-1]}: {_reason(found, name)}" for name in packages if name not in known}


def _advisory(vulnerability: dict[str, object]) -> str:
    names = [str(vulnerability["id"]), *map(str, vulnerability.get("aliases") or [])]  # type: ignore[call-overload]
    fixed = ", ".join(map(str, vulnerability.get("fix_versions") or []))  # type: ignore[call-overload]
    return f"{' '.join(names)}, mended in {fixed or 'no version yet'}"


def _reason(found: list[dict[str, str]], name: str) -> str:
    return next((one["skip_reason"] for one in found if one["name"] == name), "not in the answer")


def main() -> int:
    """Print what is known and what is not; the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--osv-url", metavar="URL")
    arguments.add_argument("--accepted", metavar="FILE", type=Path, default=SUPPLY / "accepted.txt")
    given = arguments.parse_args()
    own, lived_with = given.osv_url, accepted(given.accepted)
    services = SERVICES if own is None else (("--vulnerability-service", "osv", "--osv-url", own),)
    packages = locked(*(SUPPLY / name for name in LOCKS))
    known: dict[str, list[str]] = {}
    unknown = dict.fromkeys(packages, "")
    for service in services:
        if unknown:
            more, unknown = ask({name: packages[name] for name in unknown}, service)
            known |= more
    bad = set()
    for name, advisories in sorted(known.items()):
        for advisory in advisories:
            reasons = [lived_with[one] for one in _ID.findall(advisory) if one in lived_with]
            print(f"{name} {packages[name]}: {advisory}{'; accepted: ' * bool(reasons)}{'; '.join(reasons)}")
            bad |= set() if reasons else {name}
    print(f"{len(packages)} packages: {len(known)} looked up, {len(bad)} of them with known vulnerabilities")
    if unknown:
        print(f"nobody can tell of {len(unknown)}, such as {next(iter(unknown))}: {next(iter(unknown.values()))}")
    return 1 if bad else UNKNOWN if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
