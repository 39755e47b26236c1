"""The images that somebody may use, as the doors and the hands ask for them; nothing is pulled or built here."""

import difflib

from ds01d.adapters.docker import DockerEngine, EngineError
from ds01d.adapters.docker_reading import Unreadable
from ds01d.model.ids import Uid
from ds01d.model.image import Image, shown
from ds01d.model.operation import Failure


class EngineImages:
    """Names of images on one engine. What another user built is not told."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    async def names(self, uid: Uid) -> tuple[Image, ...] | Failure:
        """Every named image that is the user's own or nobody's."""
        try:
            return tuple(image for image in await self._engine.images() if image.owner in (None, uid))
        except (EngineError, Unreadable) as error:
            hint = "it may be down or restarting: `systemctl status docker` tells an operator why"
            return Failure(kind="engine_down", message=f"cannot list the images: {error}", hint=hint)

    async def nearest(self, image: str, uid: Uid) -> tuple[str, ...]:
        """Up to three names, as people write them, that look like this one; none where the engine does not answer."""
        there = await self.names(uid)
        if isinstance(there, Failure):
            return ()
        return tuple(difflib.get_close_matches(shown(image), [shown(one.reference) for one in there], n=3, cutoff=0.5))
