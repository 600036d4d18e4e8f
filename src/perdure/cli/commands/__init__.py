"""The commands, in modules that are imported when one is called."""
