"""Builds the two native programs with the product's own Makefile."""

import subprocess
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "native"


def build(directory: Path, program: str, *, defines: str = "") -> Path:
    """Build one program into a directory and return its path."""
    subprocess.run(
        ["make", "-s", "-C", str(NATIVE), f"BUILD={directory}", f"CPPFLAGS={defines}", f"{directory}/{program}"],
        check=True,
    )
    return directory / program
