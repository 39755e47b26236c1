"""`--all`: the same change for each of somebody's containers, side by side, after one question."""

from concurrent.futures import ThreadPoolExecutor

from ds01client.asking import confirmed, containers_of, must_ask
from ds01client.options import DRY_RUN, YES, Declined, Given
from ds01client.wire import Answer, call, shown, write

_PATIENCE_S = 3600.0
#: Said when somebody stops waiting.
GOES_ON_ALL = "ds01d goes on with what it was asked: `container-list` shows how things stand"
#: Fewer than one user may have under way at the daemon.
_AT_ONCE = 4


def change_all(given: Given, method: str, states: tuple[str, ...]) -> int:
    """Ask for a change of every container in one of these states; the first exit code that is not 0."""
    rows = [row for row in containers_of(given) if row.get("status") in states]
    if not rows:
        raise Declined("there is nothing to do", 0)
    wishes = [{**given.params, "name": row["name"], "user": row.get("user")} for row in rows]
    if not given.has(DRY_RUN) and not given.has(YES):
        must_ask()
        for answer in _each(method, [{**wish, "dry_run": True} for wish in wishes], "text"):
            write(2, answer.body)
        confirmed()
    try:
        codes = [shown(answer, given.form) for answer in _each(method, wishes, given.form)]
    except KeyboardInterrupt:
        write(2, f"\n{GOES_ON_ALL}\n".encode())
        raise
    return next((code for code in codes if code), 0)


def _each(method: str, wishes: list[dict[str, object]], show: str) -> list[Answer]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda wish: call(method, wish, show=show, patience_s=_PATIENCE_S), wishes))
