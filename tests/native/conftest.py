"""The two native programs as the product has them, the guard with a grant directory of the tests' own."""

import subprocess
from pathlib import Path

import pytest

from tests.native.programs import build


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
