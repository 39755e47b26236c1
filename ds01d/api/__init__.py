"""The doors: who is asking, what was asked, what may be asked. Knows words, not rules."""
