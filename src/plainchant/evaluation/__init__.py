"""Whether synthetic text is like the real text, and whether one can train on it."""
