"""Floor 0: plain values that every floor may use. No clock, no I/O, no asyncio."""
