"""Explanations for people: in the terminal, as an HTML page and as plots. All show what :mod:`.view` prepares."""
