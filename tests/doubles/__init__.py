"""What stands in for the real thing in tests: broken mechanisms, small models, embedders, chance, tables."""
