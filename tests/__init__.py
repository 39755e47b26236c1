"""Tests, one folder by what they are for (docs/design.md tells which)."""
