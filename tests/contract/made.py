"""One container on an engine, real or not, and the orders about it as the core would give them."""

import time
from itertools import count

from ds01d.core.effects import (
    AnyOrder,
    CreateContainer,
    KillContainer,
    KillGhost,
    LookAt,
    Permit,
    RemoveContainer,
    StartContainer,
    StopContainer,
    Withdraw,
)
from ds01d.core.events import Done, EngineHinted, Failed, Looked
from ds01d.model.container import ContainerSpec
from ds01d.model.facts import EngineStatus, Look
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, OrderId, Uid
from tests.contract.port import World

_numbers = count(1)
ALICE = Uid(1001)


class Made:
    """One container of alice's, and the orders about it as the core would give them."""

    def __init__(self, world: World, *, create: bool = True, permit: bool = False, start: bool = False) -> None:
        number = next(_numbers)
        self.world = world
        self.container = ContainerId(f"l-{number}")
        self.key = Key(f"key{number}")
        self.name = f"c{number}._.{ALICE}"
        self.engine_id = EngineId("")
        self._orders = count(1)
        if create or permit or start:
            self.engine_id = self.created(self.create())
        if permit or start:
            assert isinstance(self.permit(), Done)
        if start:
            self.start_until_it_runs()

    @staticmethod
    def created(answer: object) -> EngineId:
        assert isinstance(answer, Done)
        assert answer.engine_id is not None
        return answer.engine_id

    def order_id(self) -> OrderId:
        return OrderId(f"{self.container}.{next(self._orders)}")

    def do(self, order: AnyOrder) -> object:
        answer = self.world.perform(order)
        assert (answer.container, answer.order) == (order.container, order.order)
        return answer

    def create(self, *, container: ContainerId | None = None, image: str = "bb:latest") -> object:
        return self.do(
            CreateContainer(
                container=container or self.container,
                order=self.order_id(),
                timeout_s=60,
                key=self.key,
                name=self.name,
                user="alice",
                uid=ALICE,
                gid=1001,
                spec=ContainerSpec(image=image, gpus=None),
                created_at=time.time(),
            )
        )

    def permit(self, generation: str = "lineage.1") -> object:
        return self.do(
            Permit(
                container=self.container,
                order=self.order_id(),
                timeout_s=5,
                key=self.key,
                engine_id=self.engine_id,
                generation=generation,
                uid=ALICE,
                gid=1001,
                slots=(),
                mounts=(),
            )
        )

    def withdraw(self) -> object:
        return self.do(Withdraw(container=self.container, order=self.order_id(), timeout_s=5, key=self.key))

    def start(self, timeout_s: float = 60) -> object:
        return self.do(
            StartContainer(
                container=self.container, order=self.order_id(), timeout_s=timeout_s, engine_id=self.engine_id
            )
        )

    def start_until_it_runs(self) -> None:
        for _ in range(20):
            answer = self.start()
            if isinstance(answer, Done):
                return
            assert isinstance(answer, Failed)
            assert answer.again, answer
            self.world.wait(0.1)
        raise AssertionError(answer)

    def wait_until_it_runs(self) -> None:
        deadline = time.monotonic() + 10
        while self.look().status is not EngineStatus.RUNNING:
            assert time.monotonic() < deadline
            self.world.wait(0.1)

    def stop(self, grace_s: float = 5) -> object:
        return self.do(
            StopContainer(
                container=self.container,
                order=self.order_id(),
                timeout_s=grace_s + 30,
                engine_id=self.engine_id,
                grace_s=grace_s,
            )
        )

    def kill(self) -> object:
        return self.do(
            KillContainer(container=self.container, order=self.order_id(), timeout_s=60, engine_id=self.engine_id)
        )

    def remove(self, engine: str | None = None) -> object:
        return self.do(
            RemoveContainer(
                container=self.container,
                order=self.order_id(),
                timeout_s=60,
                engine=None if engine is None else EngineName(engine),
                engine_id=self.engine_id,
            )
        )

    def look(
        self, *, engine: str | None = None, by_name: bool = False, timeout_s: float = 10, order: OrderId | None = None
    ) -> Look:
        answer = self.do(
            LookAt(
                container=self.container,
                order=order or self.order_id(),
                timeout_s=timeout_s,
                engine=None if engine is None else EngineName(engine),
                engine_id=None if by_name else self.engine_id,
                name=self.name,
                key=self.key,
                cgroup=None,
                cgroup_parent="",
                slots=(),
            )
        )
        assert isinstance(answer, Looked)
        return answer.look

    def kill_ghost(self, look: OrderId) -> object:
        return self.do(KillGhost(container=self.container, order=self.order_id(), timeout_s=10, look=look))

    def hints(self) -> list[EngineHinted]:
        return [
            event
            for event in self.world.posted()
            if isinstance(event, EngineHinted) and event.engine_id == self.engine_id
        ]


def failed(answer: object) -> Failed:
    assert isinstance(answer, Failed), answer
    return answer
