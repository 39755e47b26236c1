"""Talks to the daemon. Standard library only, so that any system Python starts it fast; no policy, no state."""
