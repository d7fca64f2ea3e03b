"""A run: its steps, its rounds, its directory, its ledger."""
