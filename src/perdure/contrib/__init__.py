"""Perdure beside other libraries; each package needs the extra of its name."""
