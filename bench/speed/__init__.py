"""How fast, how near to what the machine can do, in how much memory: what docs/speed.md says."""
