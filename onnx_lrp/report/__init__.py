"""Explanations for people: in the terminal and as an HTML page. Both show what :mod:`.view` prepares."""
