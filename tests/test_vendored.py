"""Vendored files are byte for byte what their authors published."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

VENDOR = Path(__file__).parent.parent / "twistedsock" / "static" / "vendor"
FOLDERS = sorted(folder for folder in VENDOR.iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_file_has_the_hash_in_its_readme(folder: Path) -> None:
    """The README contains the hashes of the files in the published tarball, its version and its own hash."""
    readme = (folder / "README.md").read_text()
    assert re.search(r"npm pack [\w-]+@\d+\.\d+\.\d+", readme)
    named = dict(re.findall(r"^\| ([\w.]+) \| package/\S+ \| ([0-9a-f]{64}) \|$", readme, re.MULTILINE))
    files = {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.name != "README.md"}
    assert named == files
    assert "LICENSE" in files
