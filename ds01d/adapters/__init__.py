"""Hands and eyes: each module knows one outside thing. Knows no rules, and nothing of the doors."""
