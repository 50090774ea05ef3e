"""A page on this machine alone to explain with: one model, one person, one piece of work at a time."""
