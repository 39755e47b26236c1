"""Feeds the core one event at a time, saves, then lets orders and replies go. Knows no rules."""
