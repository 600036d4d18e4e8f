"""Measure Perdure, beside a peer, on this machine.

    python bench/run.py                                  every scenario, the median of three runs
    python bench/run.py --only one_step --runs 9 --no-peers
    python bench/run.py --json > figures.json
    python bench/run.py --postgres                       on PostgreSQL, in a cluster of its own
    python bench/run.py --postgres postgresql://me@host/postgres

Every run is a process of its own with a new database: a file under bench/.data, on the repository's
disk, or one in the server. A peer (DBOS on the same kind of database; litestar-workflows for step
machines) runs right after the scenario that it is held against, in an environment that
peers/setup.sh makes. Figures of different machines, or of
different days, do not compare: targets were set on two cores with about 3,000 durable writes a
second.

Exit status: 1 if a target was missed or a scenario failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import HERE, BenchError, Figure, Scenario, say
from server import postgres

if TYPE_CHECKING:
    from tests.support.postgres import Server

PEERS = {
    "DBOS": ("dbos", "dbos_bench.py"),
    "litestar-workflows": ("litestar-workflows", "litestar_workflows_bench.py"),
}
"""By name: the environment under .peers, and the script under peers."""
numbers = itertools.count(1)
speeds: list[float] = []
"""Of the processor, before each run of a scenario."""
HEADINGS = ("scenario", "figure", "measured", "unit", "target", "", "peer", "times better", "")


@dataclass
class Result:
    """What the runs of one scenario gave."""

    scenario: Scenario
    values: dict[str, float] = field(default_factory=dict[str, float])
    runs: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    peers: dict[str, float] = field(default_factory=dict[str, float])
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Tell whether it ran and met its targets."""
        return not self.error and all(
            figure.meets_target(self.values[figure.name], self.peers.get(figure.name))
            for figure in self.scenario.figures
        )


def main() -> None:
    """Run the scenarios asked for and print what they gave."""
    options = parse(sys.argv[1:])
    if options.call:
        harness.call(options.call[0], Path(options.call[1]))
        return
    on_postgres = options.postgres is not None
    scenarios = choose(harness.load_scenarios(), options.only, on_postgres=on_postgres)
    if options.list:
        for scenario in scenarios:
            print(f"{scenario.name:<42} {scenario.title}")
        return
    if not scenarios:
        sys.exit(f"no scenario's name holds any of {options.only}")
    if not options.no_peers:
        subprocess.run([HERE / "peers/setup.sh"], check=True)
    if on_postgres:
        with postgres(options.postgres) as server:
            results = [run(scenario, options, server) for scenario in scenarios]
            machine = describe_machine(server)
    else:
        results = [run(scenario, options) for scenario in scenarios]
        machine = describe_machine()
    machine["million_additions_per_second"] = " to ".join(
        f"{speed:.1f}" for speed in (min(speeds), max(speeds))
    )
    print(as_json(results, machine) if options.json else as_table(results, machine))
    sys.exit(0 if all(result.is_good for result in results) else 1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="scenarios whose name has it"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="default 3, and 1 of heavy scenarios")
    parser.add_argument("--no-peers", action="store_true", help="Perdure alone")
    parser.add_argument(
        "--peer-scale", type=float, default=0.2, metavar="X", help="size of the peer's runs (0.2)"
    )
    parser.add_argument(
        "--postgres",
        nargs="?",
        const="",
        metavar="URL",
        help="on PostgreSQL: in a cluster of its own, or on this server",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    parser.add_argument("--call", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def choose(
    scenarios: dict[str, Scenario], texts: Sequence[str] | None, *, on_postgres: bool
) -> list[Scenario]:
    """Return the scenarios named, or whose name has one of the texts; heavy ones last."""
    if on_postgres:
        scenarios = {
            name: dataclasses.replace(found, figures=found.on_postgres)
            for name, found in scenarios.items()
        }
    scenarios = {name: found for name, found in scenarios.items() if found.figures}
    names = {
        name
        for text in texts or ("",)
        for name in scenarios
        if name == text or (text not in scenarios and text in name)
    }
    return sorted((scenarios[name] for name in names), key=lambda found: (found.heavy, found.name))


# -- running ---------------------------------------------------------------------------------------


def run(scenario: Scenario, options: argparse.Namespace, server: Server | None = None) -> Result:
    """Run a scenario and its peer; take the median of each figure."""
    result = Result(scenario)
    count = options.runs or (1 if scenario.heavy else 3)
    peers = [] if options.no_peers else [figure for figure in scenario.figures if figure.peer]
    peer_runs: dict[str, list[float]] = {}
    for number in range(1, count + 1):
        say(f"{scenario.name} {number}/{count}")
        speeds.append(harness.million_additions_per_second())
        try:
            with harness.data_folder() as folder, new_database(server) as url:
                if url:
                    harness.use(url, folder)
                figures = harness.measure(scenario.target, folder)
            for figure in scenario.figures:
                result.runs.setdefault(figure.name, []).append(figures[figure.name])
            for figure in peers:
                with new_database(server) as url:
                    found = run_peer(figure, options.peer_scale, url)
                peer_runs.setdefault(figure.name, []).append(found)
        except BenchError as exc:
            result.error = str(exc)
            say(f"{scenario.name} failed:\n{exc}")
            break
    result.values = {name: statistics.median(values) for name, values in result.runs.items()}
    result.peers = {name: statistics.median(values) for name, values in peer_runs.items()}
    return result


@contextlib.contextmanager
def new_database(server: Server | None) -> Iterator[str]:
    """Give the URL of a new database in the server; ``""`` without one."""
    if server is None:
        yield ""
        return
    name = f"run_{next(numbers)}"
    try:
        yield server.create_database(name)
    finally:
        server.drop_database(name)


def run_peer(figure: Figure, scale: float, url: str) -> float:
    """Return the figure of the peer.

    Raises:
        BenchError: the peer failed.
    """
    home, script = PEERS[figure.whose]
    name = figure.peer or ""
    python = HERE / ".peers" / home / "bin/python"
    command = [python, HERE / "peers" / script, "--only", name, "--scale", str(scale)]
    environment = {**os.environ, "BENCH_DATABASE": url}  # it may hold a password
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise BenchError("the peer failed: " + "\n".join(done.stderr.strip().splitlines()[-5:]))
    return json.loads(done.stdout.splitlines()[-1])["figures"][name]


def describe_machine(server: Server | None = None) -> dict[str, Any]:
    """Return what figures depend on."""
    with harness.data_folder() as folder:
        syncs = harness.disk_syncs_per_second(folder)
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "durable_writes_per_second": round(syncs),
    } | ({} if server is None else describe_server(server))


def describe_server(server: Server) -> dict[str, Any]:
    """Return what figures on PostgreSQL depend on."""
    with server.connect() as connection:
        version = connection.execute("SHOW server_version").fetchone()
        fsync = connection.execute("SHOW fsync").fetchone()
    assert version is not None
    assert fsync is not None
    return {"postgresql": version[0].split()[0], "fsync": fsync[0]}


# -- printing --------------------------------------------------------------------------------------


def as_json(results: list[Result], machine: dict[str, Any]) -> str:
    """Return everything as one JSON object."""
    scenarios = {
        result.scenario.name: {
            "title": result.scenario.title,
            "figures": {
                figure.name: {
                    "value": result.values[figure.name],
                    "runs": result.runs[figure.name],
                    "unit": figure.unit,
                    "target": target(figure) or None,
                    "met": figure.meets_target(
                        result.values[figure.name], result.peers.get(figure.name)
                    ),
                    "peer": figure.whose if figure.peer else None,
                    "of_peer": result.peers.get(figure.name),
                }
                for figure in result.scenario.figures
                if figure.name in result.values
            },
            "error": result.error or None,
        }
        for result in results
    }
    return json.dumps({"machine": machine, "scenarios": scenarios}, indent=2)


def as_table(results: list[Result], machine: dict[str, Any]) -> str:
    """Return the table that people read."""
    rows = [HEADINGS, *(row for result in results for row in table_rows(result))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    right = {2, 4, 6, 7}
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    return "\n".join([*lines, "", facts])


def table_rows(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield a row per figure."""
    name = result.scenario.name
    for figure in result.scenario.figures:
        if figure.name not in result.values:
            yield (name, figure.name, "failed", "", target(figure), "MISSED", "", "", "")
            continue
        value, peer = result.values[figure.name], result.peers.get(figure.name)
        verdict = "met" if figure.meets_target(value, peer) else "MISSED"
        beside = ("", "", "")
        if peer is not None:
            times = figure.times_better(value, peer)
            beside = number(peer), f"{times:.1f}", figure.whose
        shown = verdict if target(figure) else ""
        yield (name, figure.name, number(value), figure.unit, target(figure), shown, *beside)


def target(figure: Figure) -> str:
    """Return the target as text; empty without one."""
    if figure.at_least is not None:
        return f"≥ {number(figure.at_least)}"
    if figure.times_peer is not None:
        return f"≥ {number(figure.times_peer)} times the peer"
    return "" if figure.at_most is None else f"≤ {number(figure.at_most)}"


def number(value: float) -> str:
    """Return a figure with the digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
