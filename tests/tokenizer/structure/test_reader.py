"""Files are read as their authors meant them: chains, numbers, alternatives, gaps."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from foldmint_tokenizer import InvalidStructure, Limits, read_backbones
from helpers.files.pdb_text import PdbText, alternative, atom, moved


@pytest.fixture
def capsid(data: Path) -> PdbText:
    return PdbText(data / "1a8o.pdb")


def test_the_two_formats_agree(data: Path) -> None:
    (pdb,), (cif,) = read_backbones(data / "1a8o.pdb"), read_backbones(data / "1a8o.cif")
    assert pdb.chain == cif.chain == "A"
    assert pdb.sequence == cif.sequence
    np.testing.assert_array_equal(pdb.residue_index, cif.residue_index)
    np.testing.assert_array_equal(pdb.coordinates, cif.coordinates)


def test_modified_residues_count_and_waters_do_not(data: Path) -> None:
    (chain,) = read_backbones(data / "1a8o.pdb")
    assert len(chain) == 70
    assert chain.sequence.startswith("MDIRQGPKEPF")  # the first is a selenomethionine, a HETATM
    assert chain.residue_index[0] == 151
    assert np.isfinite(chain.coordinates).all()
    np.testing.assert_array_equal(chain.coordinates[0, 1], np.array([20.255, 33.101, 26.891], np.float32))


def test_nucleic_acids_are_left_out(data: Path) -> None:
    chains = read_backbones(data / "1lcd.cif.gz")
    assert [chain.chain for chain in chains] == ["A"]
    assert len(chains[0]) == 51


def test_models_are_chosen_by_number(data: Path) -> None:
    first = read_backbones(data / "2beg.cif.gz")
    assert [chain.chain for chain in first] == list("ABCDE")
    same = read_backbones(data / "2beg.cif.gz", model_number=1)
    second = read_backbones(data / "2beg.cif.gz", model_number=2)
    np.testing.assert_array_equal(first[0].coordinates, same[0].coordinates)
    assert not np.array_equal(first[0].coordinates, second[0].coordinates)
    with pytest.raises(InvalidStructure, match="no model 11") as caught:
        read_backbones(data / "2beg.cif.gz", model_number=11)
    assert caught.value.field == "model_number"


def test_chains_are_chosen_by_name(data: Path) -> None:
    chosen = read_backbones(data / "2beg.cif.gz", chains=["D", "B"])
    assert [chain.chain for chain in chosen] == ["B", "D"]
    with pytest.raises(InvalidStructure, match="the file has: A, B, C, D, E") as caught:
        read_backbones(data / "2beg.cif.gz", chains=["Z"])
    assert (caught.value.field, caught.value.chain) == ("chains", "Z")


def test_bytes_paths_and_gzip_agree(data: Path, tmp_path: Path) -> None:
    content = (data / "1a8o.cif").read_bytes()
    packed = tmp_path / "a.cif.gz"
    # Two members, as concatenated gzip files have.
    packed.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    (expected,) = read_backbones(content)
    for source in (data / "1a8o.cif", str(data / "1a8o.cif"), packed, packed.read_bytes()):
        (chain,) = read_backbones(source)
        np.testing.assert_array_equal(chain.coordinates, expected.coordinates)


def test_negative_numbers(capsid: PdbText) -> None:
    (chain,) = read_backbones(capsid.numbered(lambda was: was - 160).bytes())
    assert chain.residue_index.tolist() == list(range(-9, 61))


def test_insertion_codes(capsid: PdbText) -> None:
    # 160, 160A, 160B, 161, ...
    def number(was: int) -> int:
        return was if was <= 160 else 160 if was <= 162 else was - 2

    content = capsid.numbered(number, lambda was: {161: "A", 162: "B"}.get(was, " ")).bytes()
    (chain,) = read_backbones(content)
    assert len(chain) == 70
    assert chain.residue_index[9:13].tolist() == [160, 160, 160, 161]
    assert chain.insertion_codes[9:13] == " AB "
    assert [chain.label(place) for place in range(9, 13)] == ["160", "160A", "160B", "161"]


def test_real_insertion_codes(data: Path) -> None:
    (chain,) = read_backbones(data / "1gbt.cif.gz")
    inserted = [chain.label(place) for place, code in enumerate(chain.insertion_codes) if code != " "]
    assert inserted == ["65A", "184A", "188A", "221A"]
    assert len(chain) == 223
    assert chain.residue_index[[0, -1]].tolist() == [16, 245]


def test_missing_atoms_and_gaps(capsid: PdbText) -> None:
    def change(line: str, number: int) -> str | None:
        if 170 <= number <= 174 or (number == 180 and atom(line) == "CA"):
            return None
        return line

    (chain,) = read_backbones(capsid.each(change).bytes())
    assert len(chain) == 65
    assert chain.residue_index[18:20].tolist() == [169, 175]
    at_180 = chain.residue_index.tolist().index(180)
    missing = np.isnan(chain.coordinates).any((1, 2))
    assert np.flatnonzero(missing).tolist() == [at_180]
    assert np.isnan(chain.coordinates[at_180, 1]).all()
    assert np.isfinite(chain.coordinates[at_180, [0, 2]]).all()


@pytest.mark.parametrize(("first", "second", "expected"), [(0.7, 0.3, 0.0), (0.3, 0.7, 1.0), (0.5, 0.5, 0.0)])
def test_the_alternative_of_highest_occupancy(
    capsid: PdbText, data: Path, first: float, second: float, expected: float
) -> None:
    def change(line: str, number: int) -> str | list[str]:
        if number != 165:
            return line
        return [alternative(line, "A", first), alternative(moved(line, 1.0), "B", second)]

    (original,) = read_backbones(data / "1a8o.pdb")
    (chain,) = read_backbones(capsid.each(change).bytes())
    assert len(chain) == 70
    difference = chain.coordinates[14] - original.coordinates[14]
    np.testing.assert_allclose(difference[:, 0], expected, atol=1e-3)


def test_one_frame_never_mixes_alternatives(capsid: PdbText, data: Path) -> None:
    """CA alone says that B is the likelier; the whole backbone says A."""

    def change(line: str, number: int) -> str | list[str]:
        if number != 165:
            return line
        likelier = 0.4 if atom(line) == "CA" else 0.9
        return [alternative(line, "A", likelier), alternative(moved(line, 1.0), "B", 1 - likelier)]

    (original,) = read_backbones(data / "1a8o.pdb")
    (chain,) = read_backbones(capsid.each(change).bytes())
    np.testing.assert_array_equal(chain.coordinates[14], original.coordinates[14])


def test_several_kinds_at_one_place_count_once(capsid: PdbText) -> None:
    def change(line: str, number: int) -> str | list[str]:
        if number != 165:
            return line
        other = f"{line[:17]}GLY{line[20:]}"
        return [alternative(line, "A", 0.3), alternative(other, "B", 0.7)]

    (chain,) = read_backbones(capsid.each(change).bytes())
    assert len(chain) == 70
    assert chain.sequence[14] == "G"


def test_residues_that_share_a_number_are_not_lost(capsid: PdbText) -> None:
    """Two neighbors, of different kinds, both numbered 165."""
    (chain,) = read_backbones(capsid.numbered(lambda was: 165 if was == 166 else was).bytes())
    assert len(chain) == 70
    assert chain.residue_index[13:17].tolist() == [164, 165, 165, 167]


def test_residues_that_cannot_be_told_apart_are_refused(capsid: PdbText) -> None:
    def same(line: str, number: int) -> str:
        return f"{line[:17]}ALA{line[20:22]} 165{line[26:]}" if number in (165, 166) else line

    with pytest.raises(InvalidStructure, match="occurs twice") as caught:
        read_backbones(capsid.each(same).bytes())
    assert (caught.value.chain, caught.value.residue) == ("A", "ALA 165")


def test_an_unknown_residue_in_the_chain_counts(capsid: PdbText) -> None:
    content = capsid.each(lambda line, n: f"{line[:17]}XYZ{line[20:]}" if n == 190 else line).bytes()
    (chain,) = read_backbones(content)
    assert len(chain) == 70
    assert chain.sequence[39] == "X"


def test_a_single_residue_is_a_protein(capsid: PdbText) -> None:
    (chain,) = read_backbones(capsid.each(lambda line, n: line if n == 165 else None).bytes())
    assert chain.residue_index.tolist() == [165]


def test_real_alternatives(data: Path) -> None:
    (chain,) = read_backbones(data / "4cup.cif.gz")
    assert len(chain) == len(set(chain.residue_index.tolist())) == 115
    assert np.isfinite(chain.coordinates).all()


LIMITS = Limits(unpacked_bytes=1_000_000, chains=3, residues=60)
REFUSED = {
    "empty": (b"", "empty"),
    "blank": (b" \n\n", "empty"),
    "text": (b"once upon a time\n", "unknown format"),
    "random bytes": (bytes(range(256)) * 8, "content"),
    "html": (b"<html><body>404 Not Found</body></html>", "HTML page"),
    "empty mmCIF": (b"data_1ABC\n#\n", "no atoms"),
    "broken mmCIF": (b"data_1ABC\nloop_\n_atom_site.id\n_atom_site.x\n1 2 3\n", "invalid mmCIF"),
    "gzip of nothing": (gzip.compress(b""), "content"),
    "gzip bomb": (gzip.compress(b"\0" * 5_000_000), "unpacks to more than"),
    "truncated gzip": (gzip.compress(b"ATOM" * 5_000)[:-20], "truncated"),
    "damaged gzip": (b"\x1f\x8b\x08\x00" + b"\x55" * 100, "damaged"),
    "gzip and junk": (gzip.compress(b"data_") + b"junk", "followed by other data"),
    "too many bytes": (b"REMARK\n" * 200_000, "at most 1000000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_content(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(InvalidStructure, match=reason) as caught:
        read_backbones(content, limits=LIMITS)
    assert caught.value.field == "content"


def test_truncated_files(data: Path) -> None:
    for name in ("1a8o.pdb", "1a8o.cif"):
        content = (data / name).read_bytes()
        header = content[: content.index(b"\nATOM")]
        with pytest.raises(InvalidStructure):
            read_backbones(header)
    cut_in_a_row = (data / "1a8o.cif").read_bytes()[:60_000]
    with pytest.raises(InvalidStructure, match="invalid mmCIF"):
        read_backbones(cut_in_a_row)


def test_no_protein(data: Path) -> None:
    text = PdbText(data / "1a8o.pdb")
    text.lines = [line for line in text.lines if line[17:20] == "HOH"]
    with pytest.raises(InvalidStructure, match="no protein"):
        read_backbones(text.bytes())


def test_limits(data: Path) -> None:
    with pytest.raises(InvalidStructure, match="70 residues; at most 60"):
        read_backbones(data / "1a8o.pdb", limits=LIMITS)
    with pytest.raises(InvalidStructure, match="5 chains; at most 3"):
        read_backbones(data / "2beg.cif.gz", limits=Limits(chains=3))


def test_coordinates_beyond_reason(data: Path) -> None:
    content = (data / "1a8o.cif").read_bytes()
    line = next(line for line in content.splitlines() if line.startswith(b"ATOM") and b" CA " in line)
    fields = line.split()
    far = line.replace(fields[10], b"2000000.5", 1)
    with pytest.raises(InvalidStructure, match="beyond") as caught:
        read_backbones(content.replace(line, far))
    assert (caught.value.field, caught.value.chain, caught.value.residue) == ("content", "A", "151")


def test_a_name_that_is_no_text(capsid: PdbText) -> None:
    content = capsid.bytes().replace(b"ALA A", b"A\xde\xffA A").replace(b"\xde\xffA A", b"\xde\xff A")
    with pytest.raises(InvalidStructure, match="not UTF-8"):
        read_backbones(content)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused(data: Path, seed: int) -> None:
    """Nothing but InvalidStructure comes of a file with random damage."""
    random = np.random.default_rng(seed)
    name = ("1a8o.pdb", "1a8o.cif")[seed % 2]
    content = np.frombuffer((data / name).read_bytes(), np.uint8)
    start = content.tobytes().index(b"_atom_site.group" if seed % 2 else b"\nATOM")
    body = np.concatenate([np.frombuffer(b"data_x\nloop_\n" * (seed % 2), np.uint8), content[start:]])
    read = refused = 0
    for _ in range(300):
        damaged = body.copy()
        places = random.integers(0, len(body), int(random.choice([1, 3, 30])))
        damaged[places] = random.choice(np.frombuffer(b"0 9-.eN?x\n\xff\x00", np.uint8), len(places))
        try:
            assert read_backbones(damaged.tobytes())
            read += 1
        except InvalidStructure:
            refused += 1
    assert read + refused == 300
    assert read > 50


def test_a_residue_without_a_number_and_with_a_name_without_end() -> None:
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
        "Cartn_x Cartn_y Cartn_z occupancy"
    )
    head = "\n".join(["data_x", "loop_", *(f"_atom_site.{column}" for column in columns.split())])
    for kind, reason in (("ALA", "no number"), ("Q" * 100, "no protein"), ("Q" * 100_000, "100000 characters")):
        rows = [f"ATOM {i} C {name} . {kind} A 1 ? {i} 0 {i % 2} 1" for i, name in enumerate(("N", "CA", "C"))]
        with pytest.raises(InvalidStructure, match=reason) as caught:
            read_backbones("\n".join([head, *rows, ""]).encode())
        assert caught.value.chain == ("A" if kind == "ALA" else None)
        assert len(str(caught.value)) < 200


def test_a_position_that_is_no_number_is_missing(data: Path) -> None:
    content = (data / "1a8o.cif").read_bytes()
    line = next(line for line in content.splitlines() if line.startswith(b"ATOM") and b" CA " in line)
    unknown = line.replace(line.split()[10], b"?", 1)
    (chain,) = read_backbones(content.replace(line, unknown))
    assert np.flatnonzero(np.isnan(chain.coordinates).any((1, 2))).tolist() == [0]


def test_names_in_lower_case(capsid: PdbText, data: Path) -> None:
    (original,) = read_backbones(data / "1a8o.pdb")
    (chain,) = read_backbones(capsid.each(lambda line, _: line[:17] + line[17:20].lower() + line[20:]).bytes())
    assert chain.sequence == original.sequence
