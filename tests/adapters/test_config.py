"""The loader: every fault found with its line, none of a bad file in force, each field from the right place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ds01d.adapters.config_files import BadConfig, ConfigFiles, LoadedPolicy
from ds01d.adapters.config_policy import FIELDS
from ds01d.adapters.config_resolve import Resolved, resolve
from ds01d.adapters.policies import Policies
from ds01d.model.account import Account, Missing
from ds01d.model.ids import Uid
from ds01d.model.policy import ContainersPolicy, GpuPolicy, Limits, Policy, Strategy
from ds01d.model.settings import Intervals, LogLevel, Settings

SHIPPED = Path(__file__).parents[2] / "etc"
ALICE, BOB, CAROL = Uid(1001), Uid(1002), Uid(1003)


class People:
    """A directory of users with three of them; names in `silent` are not answered."""

    def __init__(self) -> None:
        self.uids = {"alice": ALICE, "bob": BOB, "carol": CAROL, "228755": Uid(1_700_000_001)}
        self.groups: dict[str, frozenset[Uid]] = {}
        self.silent: set[str] = set()

    def find_name(self, name: str) -> Account | Missing:
        if name in self.silent:
            return Missing.SILENT
        if name not in self.uids:
            return Missing.NO_SUCH
        return Account(uid=self.uids[name], gid=100, name=name, home=f"/home/{name}")

    def find_members(self, group: str) -> frozenset[Uid] | Missing:
        return Missing.SILENT if group in self.silent else self.groups.get(group, Missing.NO_SUCH)


class Site:
    """An /etc/ds01 and a place for last good copies."""

    def __init__(self, tmp_path: Path) -> None:
        self.etc = tmp_path / "etc"
        self.kept = tmp_path / "config-last-good"
        (self.etc / "groups").mkdir(parents=True)
        self.files = ConfigFiles(etc=self.etc, last_good=self.kept)
        self.people = People()

    def write(self, text: str, **members: str) -> LoadedPolicy:
        self.put(text, **members)
        return self.files.policy()

    def put(self, text: str, **members: str) -> None:
        (self.etc / "resource-limits.yaml").write_text(text)
        for group, lines in members.items():
            (self.etc / "groups" / f"{group}.members").write_text(lines)

    def complaints(self, text: str, **members: str) -> list[str]:
        """All complaints, with the directory left out of the places."""
        with pytest.raises(BadConfig) as bad:
            self.write(text, **members)
        return [c.text.replace(f"{self.etc}/", "") for c in bad.value.complaints]

    def resolved(self, text: str, **members: str) -> Resolved:
        return resolve(self.write(text, **members).document, self.people)

    def policy(self, text: str, **members: str) -> Policy:
        return self.resolved(text, **members).policy


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# ---- what is in force


def test_without_any_file_what_is_built_in_holds_and_that_is_said(site: Site) -> None:
    loaded = site.files.policy_at_start()

    policy = resolve(loaded.document, site.people).policy
    assert loaded.built_in
    assert policy == Policy(groups={"student": Limits()})
    assert policy.limits(ALICE) == Limits()


def test_a_file_of_comments_is_a_file_and_sets_nothing(site: Site) -> None:
    loaded = site.write("# nothing yet\n")

    assert not loaded.built_in
    assert resolve(loaded.document, site.people).policy.limits(ALICE) == Limits()


def test_a_section_of_comments_is_no_section(site: Site) -> None:
    policy = site.policy("defaults:\n  # later\ngroups:\nuser_overrides:\ncontainers:\npolicies:\ngpu_allocation:\n")

    assert policy.limits(ALICE) == Limits()


LAYERS = """
defaults: {memory: 8g, max_cpus: 4, max_mig_instances: 2}
groups:
  student: {}
  staff: {memory: 32g, max_containers_per_user: 9, members: [alice, bob]}
user_overrides:
  alice: {max_mig_instances: 5, reason: a deadline, approved_by: carol}
"""


def test_an_override_changes_its_own_fields_and_leaves_the_others_as_the_group_says(site: Site) -> None:
    alice = site.policy(LAYERS).limits(ALICE)

    assert (alice.max_mig_instances, alice.max_containers_per_user) == (5, 9)
    assert (alice.memory, alice.max_cpus) == (32 << 30, 4)


def test_a_group_changes_its_own_fields_and_leaves_the_others_as_the_defaults_say(site: Site) -> None:
    bob = site.policy(LAYERS).limits(BOB)

    assert (bob.max_mig_instances, bob.max_containers_per_user, bob.memory, bob.max_cpus) == (2, 9, 32 << 30, 4)


def test_who_is_in_no_group_has_what_the_default_one_has(site: Site) -> None:
    policy = site.policy(LAYERS)

    assert policy.group(CAROL) == "student"
    assert (policy.limits(CAROL).memory, policy.limits(CAROL).max_mig_instances) == (8 << 30, 2)


def test_the_defaults_hold_for_everybody_where_no_group_is_written_down(site: Site) -> None:
    assert site.policy("defaults: {max_mig_instances: 7}").limits(CAROL).max_mig_instances == 7


def test_an_override_puts_its_user_before_the_others_unless_it_says_otherwise(site: Site) -> None:
    policy = site.policy("user_overrides: {alice: {max_mig_instances: 2}, bob: {priority: 20}}")

    assert (policy.limits(ALICE).priority, policy.limits(BOB).priority) == (100, 20)


@pytest.mark.parametrize(
    ("group", "hold_s", "priority"),
    [("student", 3600, 10), ("researcher", 7200, 50), ("admin", 10800, 90), ("x", 3600, 10)],
)
def test_groups_of_known_names_hold_longer_and_go_first(site: Site, group: str, hold_s: float, priority: int) -> None:
    limits = site.policy(f"groups: {{{group}: {{members: [alice]}}}}").limits(ALICE)

    assert (limits.gpu_hold_after_stop, limits.priority) == (hold_s, priority)


def test_what_a_known_name_brings_is_underneath_whatever_is_written(site: Site) -> None:
    policy = site.policy("defaults: {gpu_hold_after_stop: 5m}\ngroups: {researcher: {priority: 3, members: [alice]}}")

    assert (policy.limits(ALICE).gpu_hold_after_stop, policy.limits(ALICE).priority) == (300, 3)


def test_never_and_at_once_are_two_things(site: Site) -> None:
    never = site.policy("defaults: {gpu_hold_after_stop: null, created_timeout: 0}").limits(ALICE)
    at_once = site.policy("defaults: {gpu_hold_after_stop: 0s, created_timeout: ~}").limits(ALICE)

    assert (never.gpu_hold_after_stop, never.created_timeout) == (None, 0)
    assert (at_once.gpu_hold_after_stop, at_once.created_timeout) == (0, None)


def test_the_other_sections_arrive(site: Site) -> None:
    policy = site.policy(
        "gpu_allocation: {strategy: pack, enable_mig: false, mig_profile: 1g.10gb}\n"
        "containers: {restart_after_boot: false, default_image: 'lab/base:1', data_roots: [/d], models_roots: [/m]}\n"
        "policies: {sigterm_grace: 90s}\ndefault_group: guests\ngroups: {guests: {}}\n"
    )

    assert policy.gpu_allocation == GpuPolicy(strategy=Strategy.PACK, enable_mig=False, mig_profile="1g.10gb")
    assert policy.containers == ContainersPolicy(
        restart_after_boot=False, default_image="lab/base:1", data_roots=("/d",), models_roots=("/m",)
    )
    assert (policy.sigterm_grace, policy.default_group) == (90, "guests")


def test_the_old_name_of_a_field_means_the_same(site: Site) -> None:
    assert site.policy("defaults: {max_gpus: 6}").limits(ALICE).max_mig_instances == 6


def test_every_field_of_a_users_limits_can_be_set() -> None:
    assert set(FIELDS) == set(Limits.__struct_fields__)


# ---- who is in which group


def test_a_members_file_lists_names_uids_and_unix_groups_with_comments(site: Site) -> None:
    site.people.groups["lab"] = frozenset({CAROL})

    policy = site.policy("groups: {staff: {}}", staff="# people\nalice  # since May\n\n1002\n@lab\n")

    assert {uid: policy.group(uid) for uid in (ALICE, BOB, CAROL)} == dict.fromkeys((ALICE, BOB, CAROL), "staff")


def test_a_name_that_is_a_number_is_a_name_first(site: Site) -> None:
    policy = site.policy("groups: {staff: {members: [228755, 4711]}}")

    assert set(policy.group_of) == {Uid(1_700_000_001), Uid(4711)}


def test_being_listed_by_name_beats_being_in_a_unix_group(site: Site) -> None:
    site.people.groups["lab"] = frozenset({ALICE, BOB})

    policy = site.policy("groups: {student: {members: ['@lab']}, staff: {members: [alice]}}")

    assert (policy.group(ALICE), policy.group(BOB)) == ("staff", "student")
    assert policy.ambiguous == {}


def test_who_is_in_two_groups_through_unix_groups_is_refused_alone_and_told_both(site: Site) -> None:
    site.people.groups |= {"lab": frozenset({ALICE, BOB}), "chair": frozenset({ALICE})}

    policy = site.policy("groups: {student: {members: ['@lab']}, staff: {members: ['@chair']}}")

    assert set(policy.ambiguous) == {ALICE}
    assert "`student` (as @lab" in policy.ambiguous[ALICE]
    assert "`staff` (as @chair" in policy.ambiguous[ALICE]
    assert policy.group(BOB) == "student"


def test_a_name_and_the_uid_behind_it_in_two_groups_is_one_user_in_two_groups(site: Site) -> None:
    policy = site.policy("groups: {student: {members: [alice]}, staff: {members: [1001]}}")

    assert set(policy.ambiguous) == {ALICE}


def test_a_listed_name_without_an_account_is_remarked_and_stops_nobody(site: Site) -> None:
    resolved = site.resolved("groups:\n  staff:\n    members: [alice, mallory, '@nobody']\n")

    assert resolved.policy.group(ALICE) == "staff"
    assert [(r.line, r.message) for r in resolved.remarks] == [
        (3, "there is no account `mallory` on this machine"),
        (3, "there is no Unix group `nobody` on this machine"),
    ]


def test_what_the_directory_did_not_answer_is_named_and_is_no_remark(site: Site) -> None:
    site.people.silent = {"bob", "lab"}

    resolved = site.resolved("groups: {staff: {members: [alice, bob, '@lab']}}")

    assert (resolved.unanswered, resolved.remarks) == (("bob", "@lab"), ())
    assert resolved.policy.group(ALICE) == "staff"


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("defaults: {memroy: 8g}", "1: defaults.memroy: there is no such key; `memory` was meant?"),
        ("defautls: {}", "1: defautls: there is no such key; `defaults` was meant?"),
        ("defaults: {idle_timeout: 48h}", "1: defaults.idle_timeout: is not read by this version"),
        ("policies: {preempt: idle}", "1: policies.preempt: is not read by this version"),
        ("groups: {a: {aggregate: {}}}", "1: groups.a.aggregate: is not read by this version"),
        (
            "user_overrides: {alice: {expires: 2026-12-01}}",
            "1: user_overrides.alice.expires: is not read by this version",
        ),
        ("interop: {aime: true}", "1: interop: is not read by this version"),
        ("defaults:\n  memory: 8\n", "2: defaults.memory: `8` has no unit: write `8g` or `8M`"),
        ("defaults:\n  gpu_hold_after_stop: 2\n", "2: defaults.gpu_hold_after_stop: `2` has no unit: write `2h`"),
        ("defaults: {created_timeout: 30}", "1: defaults.created_timeout: `30` has no unit: write `30m`"),
        ("policies: {sigterm_grace: 60}", "1: policies.sigterm_grace: `60` has no unit: write `60s`"),
        ("policies: {sigterm_grace: 1:30}", "1: policies.sigterm_grace: `1:30` is no duration"),
        (
            "policies: {sigterm_grace: null}",
            "1: policies.sigterm_grace: expected a duration such as `30m`, got nothing",
        ),
        ("defaults: {gpu_hold_after_stop: -5m}", "`-5m` is negative"),
        ("defaults: {gpu_hold_after_stop: [1h]}", "expected a duration such as `30m`, got a list"),
        ("defaults: {max_mig_instances: -1}", "1: defaults.max_mig_instances: expected 0 or more, got `-1`"),
        ("defaults: {max_mig_instances: 2.5}", "expected a whole number, got `2.5`"),
        ("defaults: {max_mig_instances: '2'}", "expected a whole number, got `2`"),
        ("defaults: {max_mig_instances: 010}", "expected a whole number, got `010`"),
        ("defaults: {max_mig_instances: 1:30}", "expected a whole number, got `1:30`"),
        ("defaults: {max_mig_instances: unlimited}", "expected a whole number, got `unlimited`"),
        ("defaults: {max_gpu_equivalents: .nan}", "expected a number, got `.nan`"),
        ("defaults: {max_cpus: 0}", "expected more than 0, got `0`"),
        ("defaults: {memory: 1M}", "expected at least 6291456 bytes, got `1M`"),
        ("defaults: {memory: 0g}", "`0g` is no size"),
        ("defaults: {pids_limit: 0}", "expected 1 or more, got `0`"),
        ("defaults: {allow_full_gpu: yes}", "expected true or false, got `yes`"),
        ("defaults: {allow_full_gpu: null}", "expected true or false, got nothing"),
        ("defaults: {priority: 101}", "expected 1 to 100, got `101`"),
        ("defaults: {priority: null}", "expected a whole number, got nothing"),
        ("defaults: {max_gpus: 1, max_mig_instances: 2}", "`max_mig_instances` and its alias stand here both"),
        ("defaults:\n  memory: 8g\n  memory: 9g\n", "3: defaults.memory: stands here twice: line 2 has it too"),
        ("groups:\n  a: {}\n  b: {}\n  a: {}\n", "4: groups.a: stands here twice: line 2 has it too"),
        ("defaults: [1]", "1: defaults: expected keys and values, got a list"),
        ("groups: 3", "1: groups: expected keys and values, got `3`"),
        ("just words", "expected keys and values, got `just words`"),
        ("groups: {'../../x': {}}", "a group's name has letters"),
        ("groups: {a: {members: alice}}", "1: groups.a.members: expected a list, got `alice`"),
        ("groups: {a: {members: [alice, [bob]]}}", "1: groups.a.members: expected a text, got a list"),
        ("groups: {a: {members: [alice bob]}}", "expected one user name, uid or @unixgroup, got `alice bob`"),
        ("groups: {a: {members: [alice, alice]}}", "`alice` stands here twice"),
        (
            "groups:\n  a:\n    members: [alice]\n  b:\n    members:\n    - alice\n",
            "6: groups.b.members: `alice` is in two groups, `a` (",
        ),
        ("default_group: staff", "1: default_group: there is no group `staff`"),
        (
            "groups: {staff: {}}\ndefault_group: stuff",
            "2: default_group: there is no group `stuff`; `staff` was meant?",
        ),
        ("user_overrides: {alice: }", "1: user_overrides.alice: overrides nothing"),
        ("user_overrides: {'@lab': {priority: 5}}", "an override is for one user"),
        ("user_overrides: {alice: {reason: [a]}}", "expected a text, got a list"),
        ("gpu_allocation: {strategy: random}", "expected least_allocated or pack, got `random`"),
        ("gpu_allocation: {mig_profile: small}", "expected a MIG profile such as 2g.20gb, got `small`"),
        ("containers: {data_roots: [data]}", "expected absolute directories, got `data`"),
        ("containers: {data_roots: /data}", "expected a list, got `/data`"),
        ("defaults: {memory_swap: 8g}", "is memory and swap together"),
        (
            "defaults: {memory: 9g}\ngroups: {a: {memory_swap: 8g}}",
            "2: groups.a.memory_swap: is memory and swap together",
        ),
        (
            "defaults: {memory: 9g}\nuser_overrides: {alice: {memory_swap: 8g}}",
            "2: user_overrides.alice.memory_swap: is",
        ),
        ("defaults: &d {memory: 8g}\ngroups: {a: {<<: *d}}", "groups.a.<<: there is no such key"),
        ("a: [", "this is not YAML"),
        ("a: 1\n--- \nb: 2\n", "this is not YAML"),
        ("defaults: *nobody", "this is not YAML"),
        ("[" * 40, "nested more than 16 deep"),
        ("defaults: {memory: !!python/object:os.system x}", "expected a size"),
        ("defaults: {? [a] : 1}", "a key has to be a plain word"),
        ("x: \x07", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line_and_what_was_expected(
    site: Site, text: str, complaint: str
) -> None:
    complaints = site.complaints(text)

    assert any(complaint in c and c.startswith("resource-limits.yaml:") for c in complaints), complaints


def test_all_complaints_of_all_files_come_together(site: Site) -> None:
    complaints = site.complaints(
        "defaults: {memory: 8, priority: 0}\ngroups:\n  a: {members: [alice]}\n",
        a="bob\nalice\nx y\n",
        ghosts="carol\n",
    )

    assert [c.split(": ")[0] for c in complaints] == [
        "resource-limits.yaml:1",
        "resource-limits.yaml:1",
        "groups/a.members:3",
        "groups/ghosts.members",
        "groups/a.members:2",
    ]


def test_operators_are_shown_the_cause_before_what_follows_from_it_and_how_many_more_there_are(site: Site) -> None:
    site.files.keep_policy(site.write("groups: {admin: {}}", admin="alice\n"))
    site.put("defaults: {max_gpu: 3}", admin="alice\n")

    complaint = Policies(site.files, site.people, site.etc).start().complaint

    assert complaint is not None
    assert complaint.startswith(f"{site.etc}/resource-limits.yaml:1: defaults.max_gpu")
    assert complaint.endswith(", and 1 more: `journalctl -u ds01d` has all")


def test_a_single_complaint_has_no_more(site: Site) -> None:
    site.files.keep_policy(site.write("groups: {admin: {}}"))
    site.put("defaults: {max_gpu: 3}")

    complaint = Policies(site.files, site.people, site.etc).start().complaint

    assert complaint is not None
    assert "more" not in complaint


def test_a_file_that_is_no_text_is_refused_with_the_line(site: Site) -> None:
    (site.etc / "resource-limits.yaml").write_bytes(b"defaults:\n  memory: 8g # \xff\n")

    with pytest.raises(BadConfig, match=r"resource-limits\.yaml:2: this is not UTF-8"):
        site.files.policy()


def test_a_file_that_anybody_may_write_is_refused(site: Site) -> None:
    site.put("{}", student="alice\n")
    (site.etc / "groups" / "student.members").chmod(0o666)

    assert any("anybody may write it" in c for c in site.complaints("groups: {student: {}}"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_a_file_that_cannot_be_read_is_not_an_empty_one(site: Site, make: Callable[[Path], object]) -> None:
    make(site.etc / "resource-limits.yaml")

    with pytest.raises(BadConfig, match=r"resource-limits\.yaml: (is no regular file|cannot be read)"):
        site.files.policy()


# ---- the last good copy


def test_a_bad_file_at_start_leaves_the_last_good_one_in_force_with_the_complaints(site: Site) -> None:
    site.files.keep_policy(site.write("groups: {staff: {max_mig_instances: 4}}", staff="alice\n"))
    site.put("groups: {staff: {max_mig_instances: many}}")

    loaded = site.files.policy_at_start()

    assert resolve(loaded.document, site.people).policy.limits(ALICE).max_mig_instances == 4
    assert ["expected a whole number" in c.text for c in loaded.complaints] == [True]


def test_a_bad_file_at_the_first_start_of_all_is_refused(site: Site) -> None:
    site.put("nonsense: 1")

    with pytest.raises(BadConfig, match="nonsense"):
        site.files.policy_at_start()


def test_the_last_good_copy_is_never_made_from_itself(site: Site) -> None:
    site.files.keep_policy(site.write("defaults: {max_mig_instances: 4}"))
    site.put("nonsense: 1")
    before = {p: p.stat().st_mtime_ns for p in site.kept.rglob("*")}

    site.files.keep_policy(site.files.policy_at_start())

    assert {p: p.stat().st_mtime_ns for p in site.kept.rglob("*")} == before


def test_a_members_file_that_went_away_is_gone_from_the_copy_too(site: Site) -> None:
    site.files.keep_policy(site.write("groups: {staff: {}}", staff="alice\n"))
    (site.etc / "groups" / "staff.members").unlink()

    site.files.keep_policy(site.files.policy())

    assert sorted(p.name for p in site.kept.rglob("*") if p.is_file()) == ["resource-limits.yaml"]


def test_a_daemon_that_died_between_the_two_renames_finds_the_copy_before(site: Site) -> None:
    site.files.keep_policy(site.write("defaults: {max_mig_instances: 4}"))
    (site.kept / "policy").rename(site.kept / "policy.old")
    site.put("nonsense: 1")

    loaded = site.files.policy_at_start()

    assert resolve(loaded.document, site.people).policy.limits(ALICE).max_mig_instances == 4


# ---- ds01d.yaml


def settings(site: Site, text: str) -> Settings:
    (site.etc / "ds01d.yaml").write_text(text)
    return site.files.settings().settings


def test_the_daemons_settings_arrive(site: Site) -> None:
    found = settings(
        site,
        "engine: {address: 'unix:///run/other.sock'}\nintervals: {nvml: 2s, listing: 1m}\nlog: {level: debug}\n",
    )

    assert found == Settings(
        engine_address="unix:///run/other.sock",
        intervals=Intervals(nvml=2, listing=60),
        log_level=LogLevel.DEBUG,
    )


def test_without_a_file_of_settings_what_is_built_in_holds_and_that_is_said(site: Site) -> None:
    loaded = site.files.settings_at_start()

    assert (loaded.settings, loaded.built_in) == (Settings(), True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("engine: {address: 'tcp://1.2.3.4:2375'}", "engine.address: expected the engine's socket"),
        ("intervals: {nvml: 5}", "intervals.nvml: `5` has no unit: write `5s`"),
        ("intervals: {nvml: 0}", "intervals.nvml: expected at least 1s, got `0`"),
        ("log: {level: loud}", "log.level: expected one of debug, info, warning, error, got `loud`"),
        ("notify: {webhook: x}", "notify: is not read by this version"),
        ("engine: {adress: x}", "`address` was meant?"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(site: Site, text: str, complaint: str) -> None:
    with pytest.raises(BadConfig) as bad:
        settings(site, text)

    assert any(complaint in c.text for c in bad.value.complaints)


def test_bad_settings_at_start_leave_the_last_good_ones_in_force(site: Site) -> None:
    (site.etc / "ds01d.yaml").write_text("log: {level: debug}")
    site.files.keep_settings(site.files.settings())
    (site.etc / "ds01d.yaml").write_text("log: {level: loud}")

    loaded = site.files.settings_at_start()

    assert (loaded.settings.log_level, len(loaded.complaints)) == (LogLevel.DEBUG, 1)


# ---- what is shipped


def test_the_shipped_policy_loads_and_gives_a_student_one_slot_and_an_admin_what_there_is(tmp_path: Path) -> None:
    files = ConfigFiles(etc=SHIPPED, last_good=tmp_path)

    policy = resolve(files.policy_at_start().document, People()).policy

    assert sorted(policy.groups) == ["admin", "researcher", "student"]
    assert policy.limits(ALICE).max_mig_instances == 1
    assert policy.groups["researcher"].priority == 50
    assert policy.groups["admin"].max_mig_instances is None
    assert all(limits.created_timeout is not None for limits in policy.groups.values())


def test_the_shipped_settings_are_what_holds_without_them(tmp_path: Path) -> None:
    assert ConfigFiles(etc=SHIPPED, last_good=tmp_path).settings().settings == Settings()


def test_a_number_of_thousands_of_digits_is_a_complaint_and_no_crash(tmp_path: Path) -> None:
    site = Site(tmp_path)
    found = site.complaints(f"defaults: {{max_mig_instances: {'9' * 5000}}}\n")
    assert any("expected a whole number that means something here" in words for words in found)
    assert site.policy("groups: {student: {}}\n", student="9" * 5000).group_of == {}
