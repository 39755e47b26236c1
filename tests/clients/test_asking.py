"""Questions at a terminal: numbered choices, and a yes before anything goes for good."""

from tests.clients.conftest import OnTerminal
from tests.clients.daemon import FakeDaemon, Reply, error, result

ROWS = [
    {"name": "thesis", "user": "alice", "status": "running"},
    {"name": "vision", "user": "alice", "status": "parked"},
]


def test_without_a_name_one_chooses_by_number(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})

    with on_terminal("container-start") as terminal:
        terminal.expect("1  thesis +running")
        terminal.expect("2  vision +parked")
        terminal.expect("which one")
        terminal.type("7\n")
        terminal.expect("none of the numbers 1 to 2")
        terminal.type("2\n")
        terminal.expect("done")
        assert terminal.wait() == 0

    assert daemon.asked[-1].params["name"] == "vision"


def test_root_acts_for_whom_the_chosen_container_belongs_to(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    bobs = {"name": "thesis", "user": "bob", "status": "stopped"}
    daemon.answers["container.list"] = result({"containers": [*ROWS, bobs]})

    with on_terminal("container-start") as terminal:
        terminal.expect("3  bob +thesis")
        terminal.type("3\n")
        assert terminal.wait() == 0

    assert daemon.asked[-1].params["user"] == "bob"


def test_an_operators_verb_offers_everybodys_containers(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})

    with on_terminal("ds01ctl", "release") as terminal:
        terminal.expect("which one")
        terminal.type("2\n")
        assert terminal.wait() == 0

    assert daemon.asked[0].params == {"all": True}
    assert (daemon.asked[-1].method, daemon.asked[-1].params["name"]) == ("container.release", "vision")


def test_choosing_nothing_does_nothing(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": ROWS})

    with on_terminal("container-stop") as terminal:
        terminal.expect("which one")
        terminal.type("\n")
        terminal.expect("nothing chosen, nothing done")
        assert terminal.wait() == 1

    assert daemon.methods() == ["container.list"]


def test_where_there_is_nothing_to_choose_the_way_to_something_is_shown(
    on_terminal: OnTerminal, daemon: FakeDaemon
) -> None:
    daemon.answers["container.list"] = result({"containers": []})

    with on_terminal("container-why") as terminal:
        terminal.expect("make one with `container-create NAME IMAGE`")
        assert terminal.wait() == 4


def test_a_refusal_to_list_is_the_answer(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = error("denied", 3, "cannot show it", "ask an operator")

    with on_terminal("container-stop", "--user", "bob") as terminal:
        terminal.expect("cannot show it\r\nhint: ask an operator")
        assert terminal.wait() == 3

    assert daemon.asked[0].params == {"user": "bob"}


def test_a_removal_shows_what_it_frees_and_wants_a_yes(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.remove"] = lambda p: Reply("would free GPU 0:1\n" if p.get("dry_run") else "removed\n")

    with on_terminal("container-cleanup", "thesis") as terminal:
        terminal.expect("would free GPU 0:1")
        terminal.expect(r"go on\? \[y/N\]")
        terminal.type("y\n")
        terminal.expect("removed")
        assert terminal.wait() == 0

    assert [a.params.get("dry_run") for a in daemon.asked] == [True, None]


def test_anything_but_a_yes_removes_nothing(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    for said in ("\n", "n\n", "\x04", "yeah\n"):
        with on_terminal("container-cleanup", "thesis") as terminal:
            terminal.expect(r"go on\?")
            terminal.type(said)
            terminal.expect("nothing done")
            assert terminal.wait() == 1

    assert all(a.params["dry_run"] for a in daemon.asked)


def test_what_would_be_refused_is_refused_without_a_question(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.remove"] = Reply("cannot remove thesis: it runs\n", 1)

    with on_terminal("container-cleanup", "thesis") as terminal:
        terminal.expect("it runs")
        assert terminal.wait() == 1

    assert "go on?" not in terminal.output


def test_all_is_asked_once_after_all_is_shown(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["container.list"] = result({"containers": [{**r, "status": "running"} for r in ROWS]})
    daemon.answers["container.stop"] = lambda p: Reply(
        f"{'would stop' if p.get('dry_run') else 'stopped'} {p['name']}\n"
    )

    with on_terminal("container-stop", "--all") as terminal:
        terminal.expect("would stop thesis\r\nwould stop vision")
        terminal.expect(r"go on\?")
        terminal.type("yes\n")
        terminal.expect("stopped thesis\r\nstopped vision")
        assert terminal.wait() == 0

    assert terminal.output.count("go on?") == 1


IMAGES = [
    {"name": "thesis-image", "reference": "ds01-1/thesis-image:latest", "own": True},
    {"name": "bb", "reference": "bb:latest", "own": False},
]


def test_without_an_image_one_chooses_from_what_there_is(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["image.list"] = result({"images": IMAGES})

    with on_terminal("container-create", "vision") as terminal:
        terminal.expect("2  bb")
        terminal.type("2\n")
        assert terminal.wait() == 0

    assert daemon.asked[-1].params["image"] == "bb"


def test_enter_leaves_the_image_to_the_daemon(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["image.list"] = result({"images": IMAGES})

    with on_terminal("container-create", "vision") as terminal:
        terminal.expect("Enter for the default")
        terminal.type("\n")
        assert terminal.wait() == 0

    assert "image" not in daemon.asked[-1].params


def test_ones_own_image_of_that_name_needs_no_question(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["image.list"] = result({"images": IMAGES})

    with on_terminal("container-create", "thesis") as terminal:
        assert terminal.wait() == 0

    assert "image" not in daemon.asked[-1].params


def test_a_terminal_tells_its_width_and_wants_colour(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    for env, colour in (({}, 1), ({"NO_COLOR": "1"}, 0), ({"NO_COLOR": ""}, 1), ({"TERM": "dumb"}, 0)):
        with on_terminal("container-list", **env) as terminal:
            assert terminal.wait() == 0
        assert daemon.asked[-1].headers["Ds01-Terminal"] == f"columns=132; colour={colour}"


def test_ctrl_c_while_waiting_says_that_it_goes_on_and_how_to_see_it(
    on_terminal: OnTerminal, daemon: FakeDaemon
) -> None:
    with on_terminal("container-create", "thesis", "bb") as terminal:

        def wait(_params: dict[str, object]) -> Reply:
            terminal.type("\x03")
            terminal.process.wait(10)
            return Reply()

        daemon.answers["container.create"] = wait
        daemon.answers["image.list"] = result({"images": []})
        terminal.expect("ds01d goes on with it: `container-list` shows how it stands, `container-why thesis` why")
        assert terminal.wait() == -2  # SIGINT


def test_a_container_of_the_moment_can_choose_its_image_too(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    daemon.answers["image.list"] = result({"images": IMAGES})

    with on_terminal("ds01-run", "--dry-run") as terminal:
        terminal.expect("Enter for none")
        terminal.type("2\n")
        assert terminal.wait() == 0

    assert daemon.asked[-1].params["image"] == "bb"
