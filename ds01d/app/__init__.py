"""The composition root: `daemon` builds the parts and lives with them, `joints` are the pieces in between."""
