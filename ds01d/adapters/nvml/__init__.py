"""The driver's eyes: a parent that never blocks (`probe`), and the child that may hang for ever (`child`)."""
