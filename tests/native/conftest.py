"""Builds the two native programs as the product does, the guard with a grant directory of the tests' own."""

import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"


def build(directory: Path, program: str, *, defines: str = "") -> Path:
    """Build one program with the product's own Makefile and return its path."""
    subprocess.run(
        ["make", "-s", "-C", str(NATIVE), f"BUILD={directory}", f"CPPFLAGS={defines}", f"{directory}/{program}"],
        check=True,
    )
    return directory / program


@pytest.fixture(scope="session")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("native"), "ds01-init")


@pytest.fixture(scope="session")
def grants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grant")


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory, grants: Path) -> Path:
    return build(tmp_path_factory.mktemp("native"), "cdi-guard", defines=f"'-DGRANT_DIR=\"{grants}\"'")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guard's parsers under the address and undefined-behaviour sanitizers."""
    program = tmp_path_factory.mktemp("native") / "guard-probe"
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = Path(__file__).with_name("guard_probe.c")
    subprocess.run(["gcc", "-std=c11", *sanitizers, "-o", str(program), str(source)], check=True)
    return program
