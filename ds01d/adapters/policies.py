"""The policy in force: loaded at start, loaded again when asked or when a file changed, and never a bad one."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.config_files import BadConfig, ConfigFiles, LoadedPolicy
from ds01d.adapters.config_resolve import Directory, resolve
from ds01d.adapters.own_thread import begin
from ds01d.logs import log
from ds01d.model.complaint import in_brief
from ds01d.model.policy import Policy

#: The files are looked at so often, and NSS is asked again so often; seconds.
WATCH_S: Final = 1.0
RENEW_S: Final = 300.0
#: After an NSS that did not answer; seconds.
UNANSWERED_S: Final = 30.0
#: Longer (seconds), and the policy before stays in force.
LOAD_S: Final = 30.0


class Policies:
    """Reads through `files`, resolves through `directory`; hands each new policy to `govern`."""

    def __init__(self, files: ConfigFiles, directory: Directory, etc: Path) -> None:
        self._files = files
        self._directory = directory
        self._etc = etc
        self._asked = asyncio.Event()
        self._unanswered = False
        self._seen: object = None
        self._current = Policy()

    @property
    def current(self) -> Policy:
        """The policy in force."""
        return self._current

    def start(self) -> Policy:
        """Load at start, blocking: the files, else the last good copy, said so. Raises `BadConfig` where neither is."""
        self._seen = self._fingerprint()
        loaded = self._files.policy_at_start()
        if loaded.built_in:
            log.warning("policy.built_in", do=f"write {self._etc}/resource-limits.yaml")
        for complaint in loaded.complaints:
            log.error("policy.refused", complaint=complaint.text, now="the last good copy is in force")
        self._current = self._adopt(loaded, in_brief(loaded.complaints))
        return self._current

    def ask(self) -> None:
        """Load again now."""
        self._asked.set()

    async def run(self, govern: Callable[[Policy], None]) -> None:
        """Load again whenever asked, when a file changed, and every few minutes for what NSS says."""
        renew_at = asyncio.get_running_loop().time() + RENEW_S
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked, now = self._asked.is_set(), asyncio.get_running_loop().time()
            self._asked.clear()
            seen = await asyncio.to_thread(self._fingerprint)
            if not asked and seen == self._seen and now < renew_at:
                continue
            self._seen = seen
            try:
                async with asyncio.timeout(LOAD_S):
                    policy = await begin(self._load, "policy")
            except TimeoutError:
                log.error("policy.stuck", do="see whether NSS and the disk of /etc answer; the old policy stays")
                policy = self._current
            renew_at = now + (UNANSWERED_S if self._unanswered else RENEW_S)
            if policy != self._current:
                self._current = policy
                govern(policy)
                log.info("policy.loaded", groups=sorted(policy.groups), complaint=policy.complaint)

    def _load(self) -> Policy:
        try:
            loaded = self._files.policy()
        except BadConfig as bad:
            for complaint in bad.complaints:
                log.error("policy.refused", complaint=complaint.text, now="the policy before stays in force")
            return msgspec.structs.replace(self._current, complaint=in_brief(bad.complaints))
        return self._adopt(loaded, None)

    def _adopt(self, loaded: LoadedPolicy, complaint: str | None) -> Policy:
        resolved = resolve(loaded.document, self._directory)
        for remark in resolved.remarks:
            log.warning("policy.remark", remark=remark.text)
        self._unanswered = bool(resolved.unanswered)
        try:
            self._files.keep_policy(loaded)
        except OSError as error:
            log.error("policy.not_kept", error=str(error), do="the last good copy is an older one")
        policy = msgspec.structs.replace(resolved.policy, complaint=complaint)
        return policy if not resolved.unanswered else _as_last_heard(policy, self._current, resolved.unanswered)

    def _fingerprint(self) -> object:
        """What changes when one of the files does."""
        found: list[tuple[str, int, int, int]] = []
        for path in (self._etc / "resource-limits.yaml", *sorted((self._etc / "groups").glob("*.members"))):
            try:
                at = path.stat()
            except OSError:
                continue
            found.append((path.name, at.st_ino, at.st_size, at.st_mtime_ns))
        return tuple(found)


def _as_last_heard(policy: Policy, before: Policy, unanswered: tuple[str, ...]) -> Policy:
    """While NSS does not answer, its last answer holds: nobody falls out of his group because a look-up failed."""
    known = {uid: group for uid, group in before.group_of.items() if group in policy.groups}
    return msgspec.structs.replace(policy, group_of=known | policy.group_of, unanswered=unanswered)
