"""The built mock library: where it lies, and the environment in which a process uses it."""

import subprocess
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def environment(state: Path) -> dict[str, str]:
    """Build the library if it is older than its source, and say how a child process gets it and this state."""
    subprocess.run(["make", "--quiet", "-C", str(_HERE)], check=True)
    return {"LD_LIBRARY_PATH": str(_HERE / "build"), "NVML_MOCK_STATE": str(state)}
