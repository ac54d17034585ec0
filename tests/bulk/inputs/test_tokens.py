"""Jobs of all kinds of inputs: the tokens are those of the same structures as files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from benchmarks.stress.bulk_inputs import rows_of
from foldmint_bulk import JobOptions, Worker, create_job, finish, units
from foldmint_bulk.inputs.base import InputOptions
from foldmint_tokenizer import StructureTokenizer
from foldmint_tokenizer.structure.backbone import backbone
from helpers.bulk_inputs import Trajectory
from helpers.chains import RealChain
from helpers.files.foldcomp_database import packed_structure, write_database


def test_tokens_are_those_of_files(
    tmp_path: Path, data: Path, chains: list[RealChain], tokenizer: StructureTokenizer, make_worker: Any
) -> None:
    import foldcomp

    folder = tmp_path / "inputs"
    folder.mkdir()
    cif, packed, chain = (data / "1a8o.cif").read_bytes(), packed_structure(), chains[0]
    parquet.write_table(pa.table({"id": ["a", "none"], "mmcif": [cif, b"nothing"]}), folder / "files.parquet")
    set_ = {"id": [chain.id], "coordinates": [chain.coordinates.ravel()], "residue_index": [chain.residue_index]}
    parquet.write_table(pa.table(set_), folder / "set.parquet")
    write_database(folder / "database", ["one", "torn"], [packed, packed[:-40]])
    (folder / "alone.fcz").write_bytes(packed)
    trajectory = Trajectory(data, 4)
    trajectory.write(folder / "md.dcd")
    (tmp_path / "topology.pdb").write_bytes(trajectory.pdb(0))

    options = InputOptions(topology=str(tmp_path / "topology.pdb"), stride=3)
    job = create_job([str(folder)], str(tmp_path / "out"), options=JobOptions(unit_structures=2, inputs=options))
    worker: Worker = make_worker(job)
    for unit in units(job.out):
        worker(unit)
    summary = finish(job.out)

    own = foldcomp.decompress(packed)[1].encode()
    frames = {f"md.dcd!{frame}": trajectory.pdb(frame) for frame in (0, 3)}
    expected = {name: tokenizer.tokenize(content) for name, content in {"files.parquet!a": cif, **frames}.items()}
    expected |= dict.fromkeys(("database!one", "alone.fcz"), tokenizer.tokenize(own))
    rows = {row["source"].removeprefix(f"{folder}/"): row for row in rows_of(tmp_path / "out").to_pylist()}
    assert rows.keys() == {*expected, f"set.parquet!{chain.id}"}
    for name, tokens in expected.items():
        assert rows[name]["tokens"] == tokens.chains[0].tokens.tolist()
        assert rows[name]["sequence"] == tokens.chains[0].sequence
    of_chain = tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))
    assert rows[f"set.parquet!{chain.id}"]["tokens"] == of_chain.chains[0].tokens.tolist()
    failures = parquet.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert sorted(failure["source"].removeprefix(f"{folder}/") for failure in failures) == [
        "database!torn",
        "files.parquet!none",
    ]
    assert summary.structures == 6
