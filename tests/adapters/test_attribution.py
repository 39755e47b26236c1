"""Whose a container is that we did not make: what proves it tells, everything else leaves it unknown."""

from pathlib import Path

import pytest

from ds01d.adapters.attribution import Attribution
from ds01d.adapters.cgroups import Cgroups
from ds01d.adapters.procfs import Procfs
from ds01d.model.ids import EngineId, Uid

ID = EngineId("ab" * 32)
SCOPE = f"/system.slice/docker-{ID}.scope"
NAMES = {Uid(1001): "alice", Uid(1002): "bob", Uid(0): "root"}


class Machine:
    """A process table and a cgroup tree in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text("1 0 0:1 / /cg rw - cgroup cgroup rw\n")
        self.scope = root / f"cg{SCOPE}"
        self.scope.mkdir(parents=True)
        self.attribution = Attribution(Procfs(root), Cgroups(root), NAMES.get)

    def runs(self, *processes: tuple[int, int, int]) -> None:
        """These live in the container: pid, uid, when it started."""
        for pid, uid, start in processes:
            at = self.root / f"proc/{pid}"
            at.mkdir(exist_ok=True)
            fields = ["S", "1", *["0"] * 17, str(start), *["0"] * 30]
            (at / "stat").write_text(f"{pid} (python) {' '.join(fields)}\n")
            (at / "status").write_text(f"Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
            (at / "cgroup").write_text(f"0::{SCOPE}\n")
            (at / "cmdline").write_bytes(b"python\0")
        (self.scope / "cgroup.procs").write_text("".join(f"{pid}\n" for pid, _, _ in processes))

    def user(self, name: str = "nb", **labels: str) -> str | None:
        self.attribution.look({ID: SCOPE})
        return self.attribution.user(ID, name, {key.replace("_", "."): value for key, value in labels.items()})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_is_whose_first_process_runs_in_it_whatever_pids_came_round(machine: Machine) -> None:
    machine.runs((77, 1002, 900), (4000, 1001, 500))
    assert machine.user() == "alice"


def test_root_in_a_container_may_be_anybody(machine: Machine) -> None:
    machine.runs((77, 0, 900))
    assert machine.user() is None


def test_a_uid_without_a_name_is_nobody_known(machine: Machine) -> None:
    machine.runs((77, 165_536, 900))
    assert machine.user() is None


def test_one_that_does_not_run_is_nobodys_known(machine: Machine) -> None:
    assert machine.user() is None


def test_the_next_run_may_be_another_users(machine: Machine) -> None:
    machine.runs((77, 1001, 500))
    assert machine.user() == "alice"
    machine.attribution.look({})
    machine.runs((78, 1002, 900))
    assert machine.user() == "bob"


@pytest.mark.parametrize(
    ("name", "user"),
    [("pt._.1002", "bob"), ("x._.0", None), ("x._.4242", None), ("pt", "alice"), ("pt._.", "alice")],
)
def test_the_uid_in_a_name_of_aimes_goes_before_its_label_and_its_processes(
    machine: Machine, name: str, user: str | None
) -> None:
    machine.runs((77, 1001, 500))
    assert machine.user(name, aime_mlc_USER="alice") == user


def test_such_a_name_without_aimes_label_proves_nothing(machine: Machine) -> None:
    assert machine.user("pt._.1002") is None
    assert machine.user("nb", aime_mlc_USER="alice") is None
