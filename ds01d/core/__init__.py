"""The mind: turns events into changes and orders. Pure and synchronous; no clock, no I/O, no logging."""
