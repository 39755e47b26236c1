"""How the daemon logs: facts as keys, one event a line, JSON on stderr. The core does not log, the loop does."""

import json
import logging
import sys

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger("ds01d")


#: Made once: `json.dumps` makes another for each line, once it is told what to do with values that it does not know.
_encode = json.JSONEncoder(default=repr).encode


def configure(level: str = "info") -> None:
    """Log JSON lines from this level up to stderr, which systemd reads into the journal."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(lambda line, **_: _encode(line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
