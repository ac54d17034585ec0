"""Classification of residues by name: amino acids and their letters, water, ions, caps and nucleic acids."""

from enum import IntEnum
from functools import cache
from importlib.resources import files

import gemmi

from foldmint_tokenizer.structure.left_out import LeftOutKind


class NameKind(IntEnum):
    """The kind of residue that a name stands for."""

    AMINO_ACID = 0
    UNKNOWN = 1  # a ligand, or an amino acid in no table
    WATER = 2
    ION = 3
    CAP = 4
    NUCLEIC_ACID = 5


LEFT_OUT_KINDS = {
    NameKind.AMINO_ACID: LeftOutKind.LIGAND,  # a free amino acid
    NameKind.UNKNOWN: LeftOutKind.LIGAND,
    NameKind.WATER: LeftOutKind.WATER,
    NameKind.ION: LeftOutKind.ION,
    NameKind.CAP: LeftOutKind.CAP,
    NameKind.NUCLEIC_ACID: LeftOutKind.NUCLEIC_ACID,
}


def _words(text: str) -> list[str]:
    return text.split()


STANDARD = {
    "ALA": "A",
    "ARG": "R",
    "ASN": "N",
    "ASP": "D",
    "CYS": "C",
    "GLN": "Q",
    "GLU": "E",
    "GLY": "G",
    "HIS": "H",
    "ILE": "I",
    "LEU": "L",
    "LYS": "K",
    "MET": "M",
    "PHE": "F",
    "PRO": "P",
    "SER": "S",
    "THR": "T",
    "TRP": "W",
    "TYR": "Y",
    "VAL": "V",
}

_FORCE_FIELDS = {
    # CHARMM, AMBER, OPLS and GROMOS: protonation states, disulfide bonds, and the names that their programs write.
    "H": "HSD HSE HSP HID HIE HIP HISA HISB HISD HISE HISH HISP HIS1 HIS2",
    "C": "CYX CYM CYSH CYS1 CYS2 CYSX",
    "D": "ASH ASPH ASPP",
    "E": "GLH GLUH GLUP",
    "K": "LYN LSN LYSH LYSN",
    "R": "ARN ARGN",
    "Y": "TYM",
}
# AMBER's residues at the ends of a chain: N or C before the name, such as NALA and CHIE.
_TERMINI = "NC"
_ENDS = (*STANDARD, "HID", "HIE", "HIP", "CYX", "ASH", "GLH", "LYN")


def _force_field_letters() -> dict[str, str]:
    letters = {name: letter for letter, names in _FORCE_FIELDS.items() for name in names.split()}
    ends = {end + name: letters.get(name) or STANDARD[name] for name in _ENDS for end in _TERMINI}
    return ends | letters


FORCE_FIELD = _force_field_letters()
"""Letters for the names that force fields give to amino acids."""

_WATERS = frozenset(_words("HOH DOD H2O D2O WAT TIP TIP2 TIP3 TIP4 TIP5 TP3 TP4 TP5 T4P SOL SPC SPCE"))
_CAPS = frozenset(_words("ACE NME NMA NH2 NHE FOR CT1 CT2 CT3 BOC"))
# Ions of force fields; others are named after an element, possibly with a digit or a charge.
_ION_NAMES = frozenset(_words("SOD CLA POT CES CAL LIT RUB BAR CAD CIO IOD BRO 3CO 4MO"))
_NUCLEIC_ACIDS = frozenset(
    _words(
        "ADE CYT GUA THY URA RA RC RG RU A5 A3 C5 C3 G5 G3 U5 U3 RA5 RA3 RC5 RC3 RG5 RG3 RU5 RU3 DA5 DA3 DC5 DC3 "
        "DG5 DG3 DT5 DT3"
    )
)
_ELEMENTS = frozenset(
    _words(
        "LI BE NA MG AL K CA SC TI V CR MN FE CO NI CU ZN GA RB SR Y ZR NB MO RU RH PD AG CD IN SN SB CS BA LA CE "
        "PR ND SM EU GD TB DY HO ER TM YB LU HF TA W RE OS IR PT AU HG TL PB BI TH U F CL BR I AR KR XE"
    )
)


@cache
def _components() -> dict[str, tuple[NameKind, str]]:
    """Peptide-linking and nucleic acid components of the CCD: kind and letter."""
    kinds = {"peptide": NameKind.AMINO_ACID, "nucleic_acid": NameKind.NUCLEIC_ACID}
    lines = (files("foldmint_tokenizer.structure") / "components.tsv").read_text().splitlines()[1:]
    return {name: (kinds[kind], letter) for name, kind, letter in (line.split("\t") for line in lines)}


def name_kind(name: str) -> NameKind:
    """The kind of a residue with this name, in upper or lower case, unless the file itself classifies it."""
    name = name.upper()
    if name in _CAPS:
        return NameKind.CAP
    if name in _WATERS:
        return NameKind.WATER
    if name in FORCE_FIELD:
        return NameKind.AMINO_ACID
    if name in _components():
        return _components()[name][0]
    if name in _NUCLEIC_ACIDS:
        return NameKind.NUCLEIC_ACID
    if name in _ION_NAMES or name.rstrip("+-0123456789") in _ELEMENTS:
        return NameKind.ION
    return NameKind.WATER if gemmi.find_tabulated_residue(name).is_water() else NameKind.UNKNOWN


def is_linking(name: str) -> bool:
    """Whether this name is a peptide-linking component of the CCD."""
    return _components().get(name.upper(), (None,))[0] is NameKind.AMINO_ACID


def is_known_long_name(name: str) -> bool:
    """Whether this is a four-letter name that force fields use."""
    return len(name) == 4 and (name in FORCE_FIELD or name in _WATERS)


def letter(name: str, *, by_ccd: bool) -> str:
    """The one-letter code of an amino acid, X if it has none.

    by_ccd: for names that mean different residues in the CCD and in force fields (HSE, GLH), use the CCD.
    """
    name, components = name.upper(), _components()
    if by_ccd and name in components:
        return components[name][1]
    if name in FORCE_FIELD:
        return FORCE_FIELD[name]
    return components[name][1] if name in components else "X"
