"""A PostgreSQL server for scenarios: one that is given, or a cluster of the benchmark's own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import HERE, BenchError

if TYPE_CHECKING:
    from tests.support.postgres import Server

SETTINGS = {
    "shared_buffers": "128MB",  # what a new cluster has; the tests' clusters have less
    "shared_preload_libraries": "pg_stat_statements",  # for the scenario that counts statements
}


@contextlib.contextmanager
def postgres(url: str) -> Iterator[Server]:
    """Give the server of ``url``, or (``""``) a cluster that ends with this process.

    The databases made in it are dropped at the end.

    Raises:
        BenchError: there is no PostgreSQL on this machine.
    """
    sys.path.append(str(HERE.parent))
    from tests.support.postgres import Cluster, Home, Server, find_programs

    if url:
        server = Server(url, prefix="perdure_bench_")
        try:
            yield server
        finally:
            server.drop_databases()
        return
    programs = find_programs()
    if programs is None:
        raise BenchError("no PostgreSQL on this machine; install it, or give --postgres a URL")
    home = Home()
    try:
        cluster = Cluster(home.path, programs, SETTINGS)
        cluster.start()
        yield cluster
    finally:
        home.close()
