"""The demonstration: an order outlives its worker.

``orders.py`` is the program (``examples/orders.py`` is the same text), ``story.py`` kills its
worker and checks what came of it.
"""
