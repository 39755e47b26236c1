"""The words: frozen values that everything else is said in. Imports nothing of ours."""
