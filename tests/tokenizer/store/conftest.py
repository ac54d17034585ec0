"""Stores' files in a folder and in S3."""

from pathlib import Path

import pytest

from foldmint_tokenizer.store.storage import Files


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "s3":
        return Files(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return Files(tmp_path)
