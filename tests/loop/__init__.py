"""The loop, between a disk and hands that do as a test says."""
