"""Floor 3: the store port and its implementations."""
