"""Floor 5: the imperative shell around the kernel. Start reading at ``turns.py``."""
