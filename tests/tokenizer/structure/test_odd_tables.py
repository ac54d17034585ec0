"""Tables of mmCIF files that are written in unusual but sound ways, and what messages say of those that are not."""

import contextlib
from pathlib import Path

import pytest

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.reader import read_backbones


@pytest.fixture
def text(data: Path) -> str:
    return (data / "1a8o.cif").read_text()


def _row(text: str, number: int) -> int:
    """Where a row of atoms begins."""
    return text.index(f"\nATOM   {number} ") + 1


def test_a_comment_among_atoms_ends_no_table(text: str) -> None:
    """Whatever loop stands before: the rows that follow must not be taken for its own."""
    whole = read_backbones(text.encode())
    at = text.rindex("loop_", 0, _row(text, 9))
    for width in range(1, 5):
        items = "".join(f"_own.item{place}\n" for place in range(width))
        loop = f"loop_\n{items}{'1 ' * width}\n"
        place = _row(text, 200)
        changed = text[:at] + loop + text[at:place] + "# a comment\n\n" + text[place:]
        (chain,) = read_backbones(changed.encode())
        assert chain.sequence == whole[0].sequence


def test_what_follows_displacements_is_read(text: str) -> None:
    anisotropic = "loop_\n_atom_site_anisotrop.id\n_atom_site_anisotrop.U[1][1]\n1 0.1\n2 0.1\n"
    at = text.rindex("loop_", 0, _row(text, 9))
    for keyword in ("loop_", "  loop_", "LOOP_"):
        changed = text[:at] + anisotropic + keyword + text[at + 5 :]
        (chain,) = read_backbones(changed.encode())
        assert len(chain) == 70


def test_the_line_at_fault_is_that_of_the_file(text: str) -> None:
    changed = text.rstrip().rstrip("#") + "\nnonsense without a loop\n"
    line = changed.count("\n")
    with pytest.raises(InvalidStructure, match=rf"data:{line}:"):
        read_backbones(changed.encode())


def test_a_coordinate_that_is_no_number_is_told_by_residue(text: str) -> None:
    changed = text.replace("ATOM   10 ", "ATOM   10 ", 1)
    row = _row(changed, 10)
    end = changed.index("\n", row)
    words = changed[row:end].split()
    words[10] = "1.2.3"
    broken = changed[:row] + " ".join(words) + changed[end:]
    with pytest.raises(InvalidStructure, match=r"Cartn_x is not a number: '1.2.3'") as caught:
        read_backbones(broken.encode())
    assert (caught.value.chain, caught.value.residue) == ("A", f"{words[5]} {words[21]}")


def test_blocks_of_one_name_are_all_read(text: str) -> None:
    """Files put together, one after another; names tell their chains apart."""
    chains = read_backbones("\n".join([text, text, text.replace("data_1A8O", "data_1a8o_2")]).encode())
    assert [chain.chain for chain in chains] == ["A", "A_2", "A_3"]
    assert {chain.sequence for chain in chains} == {chains[0].sequence}


def test_items_that_are_there_twice_are_refused(text: str) -> None:
    with pytest.raises(InvalidStructure, match=r"duplicate tag _entry\.id"):
        read_backbones(text.replace("_entry.id", "_entry.id 1\n_entry.id", 1).encode())


@pytest.mark.parametrize("before", ["", "# a comment\n"], ids=["rows only", "a comment among rows"])
@pytest.mark.parametrize("column", range(6, 18))
def test_values_that_are_not_utf8_are_read_or_refused(text: str, column: int, before: str) -> None:
    """Never any other error, in whatever column: parsers of C++ raise their own."""
    row = _row(text, 9)
    line = text[row : text.index("\n", row)]
    values = line.split()
    values[column] = "'A \udca7'"
    changed = text.replace(line, before + " ".join(values))
    with contextlib.suppress(InvalidStructure):  # where the value counts
        read_backbones(changed.encode("utf-8", "surrogateescape"))


def test_errors_that_quote_the_file_are_short(text: str) -> None:
    for name in ("_atom_site." + "x" * 5000, "_other." + "x" * 5000):
        changed = text.replace("_atom_site.Cartn_x", name)
        with pytest.raises(InvalidStructure) as refusal:
            read_backbones(changed.encode())
        assert len(str(refusal.value)) < 1_100
    assert len(str(InvalidStructure("content", "\u202e" * 5000))) < 1_100
