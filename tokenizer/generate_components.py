"""Write the table of the CCD's peptide-linking and nucleic acid components for the reader.

PYTHONPATH=.reference .venv/bin/python tokenizer/generate_components.py

The Chemical Component Dictionary of the wwPDB is in the public domain (CC0); biotite ships it, and is installed beside
the environment by `make reference`.
"""

from pathlib import Path

from biotite.structure.info.ccd import get_ccd

TABLE = Path(__file__).parent / "foldmint_tokenizer" / "structure" / "components.tsv"
HEADER = "# Components of the wwPDB's Chemical Component Dictionary (CC0) in chains: name, kind, letter.\n"


def kind(linking: str) -> str | None:
    """`peptide`, `nucleic_acid`, or None for components of neither; linking: the CCD's type."""
    linking = linking.lower()
    if "peptide" in linking and linking != "peptide-like":
        return "peptide"
    return "nucleic_acid" if "dna" in linking or "rna" in linking else None


def main() -> None:
    """Write the table."""
    components = get_ccd()["chem_comp"]
    items = ("id", "type", "one_letter_code", "mon_nstd_parent_comp_id")
    rows = sorted(zip(*(components[item].as_array().tolist() for item in items), strict=True))
    letters = {name: letter for name, _, letter, _ in rows if len(letter) == 1 and letter.isupper()}
    lines = []
    for name, linking, _, parent in rows:
        if (found := kind(linking)) is not None:
            lines.append(f"{name}\t{found}\t{letters.get(name) or letters.get(parent, 'X')}\n")
    TABLE.write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
