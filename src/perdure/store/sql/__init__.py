"""What the stores on SQL share: everything but the words, the locks and the connection.

A dialect (``store.sqlite``, ``store.postgres``) gives named queries, the same names in each, and a
:class:`perdure.store.sql.database.Database` that runs them.
"""
