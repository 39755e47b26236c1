"""What every test shares: who may run it here, golden files, and a closing word on what did not run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# The machine decides how long an example takes, not the code alone.
hypothesis.settings.register_profile("ds01d", deadline=None)
hypothesis.settings.load_profile("ds01d")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write golden files anew instead of comparing with them")


def pytest_configure() -> None:
    """Under nohup what is started here would not hear that its terminal is gone: what is caught is not passed on."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0:
        for marker in ("system", "root"):
            if item.get_closest_marker(marker) is not None:
                pytest.skip("needs root")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in so many words what was left out: -ra lists the reasons, this line stands there when there are none."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    deselected = len(terminalreporter.stats.get("deselected", []))
    left_out = [f"{skipped} skipped, reasons below"] if skipped else []
    chosen = terminalreporter.config.option.markexpr
    left_out += [f"{deselected} not chosen" + (f" by -m '{chosen}'" if chosen else "")] if deselected else []
    terminalreporter.write_line(f"left out: {', '.join(left_out) or 'nothing'}")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with the file that holds what people see; `make golden` writes the file instead."""
    rewrite: bool = request.config.getoption("--rewrite")

    def compare(file: Path, actual: str) -> None:
        if rewrite:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(actual)
        assert file.exists(), f"{file} is not there yet; make golden writes it"
        assert file.read_text() == actual, f"{file} says otherwise; if the new text is right, make golden"

    return compare
