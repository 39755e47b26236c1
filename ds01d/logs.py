"""How the daemon logs: facts as keys, one event a line, JSON on stderr. The core does not log, the loop does."""

import logging
import sys

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger("ds01d")


def configure(level: str = "info") -> None:
    """Log JSON lines from this level up to stderr, which systemd reads into the journal."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
