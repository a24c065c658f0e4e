#!/usr/bin/env python3
"""The bench's append, done by the Python package `eventsourcing` on its SQLite persistence; see README.md."""

import argparse
import json
import sys
import threading
import time
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from sqlite3 import sqlite_version
from uuid import uuid4

SKIPPED = 77

try:
    from importlib.metadata import version

    from eventsourcing import sqlite
    from eventsourcing.application import Application
    from eventsourcing.domain import DomainEvent
except ImportError as error:
    print(f"python_eventsourcing.py: skipped, {error}", file=sys.stderr)
    sys.exit(SKIPPED)


class Recorded(DomainEvent):
    """An event of the file."""

    kind: str
    data: dict


def main():
    arguments = parse()
    set_sync(arguments.sync)
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(arguments.dir / "events.db"),
        # Many writers wait for long: that is not to be an error.
        "SQLITE_LOCK_TIMEOUT": "120",
        "SQLITE_POOL_TIMEOUT": "120",
    }
    application = Application(env=environment)
    calls_of_writers = prepare(arguments)
    latencies = [[] for _ in calls_of_writers]
    failures = []

    def write(calls, of_writer):
        try:
            for call in calls:
                began = time.perf_counter()
                application.events.put(call)
                of_writer.append(time.perf_counter() - began)
        except Exception as error:
            failures.append(error)

    began = time.perf_counter()
    threads = [threading.Thread(target=write, args=pair) for pair in zip(calls_of_writers, latencies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    # The last connection to close empties the write-ahead log into the file.
    application.close()
    files = [file for file in arguments.dir.iterdir() if not file.name.endswith("-shm")]
    print(
        json.dumps(
            {
                "events": arguments.count,
                "seconds": seconds,
                **percentiles([latency for of_writer in latencies for latency in of_writer]),
                "bytes": sum(file.stat().st_size for file in files),
                "sync": arguments.sync,
                "version": f"eventsourcing {version('eventsourcing')}, SQLite {sqlite_version}",
            }
        )
    )


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["append"])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--sync", choices=["full", "normal"], default="full")
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=int, help="not used")
    arguments = parser.parse_args()
    if min(arguments.count, arguments.writers, arguments.batch) < 1:
        parser.error("counts are above zero")
    return arguments


def set_sync(mode):
    """Sets the sync mode of each connection, which the package has no option for."""
    create = sqlite.SQLiteConnectionPool._create_connection

    def create_with_mode(pool):
        connection = create(pool)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous = {mode}")
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone()[0] == {"normal": 1, "full": 2}[mode]
        return connection

    sqlite.SQLiteConnectionPool._create_connection = create_with_mode


def prepare(arguments):
    """The calls of each writer: lists of events of a stream of its own."""
    with arguments.events.open() as file:
        events = cycle([json.loads(line) for line in file])
    shares = [arguments.count // arguments.writers] * arguments.writers
    for writer in range(arguments.count % arguments.writers):
        shares[writer] += 1
    calls_of_writers = []
    for share in shares:
        stream = uuid4()
        recorded = [
            Recorded(
                originator_id=stream,
                originator_version=number,
                timestamp=datetime.now(timezone.utc),
                kind=event["kind"],
                data=event["data"],
            )
            for number, event in enumerate(islice(events, share), start=1)
        ]
        calls_of_writers.append([recorded[at : at + arguments.batch] for at in range(0, share, arguments.batch)])
    return calls_of_writers


def percentiles(latencies):
    latencies.sort()

    def at(share):
        return round(latencies[round((len(latencies) - 1) * share)] * 1e6, 1)

    return {"p50_us": at(0.5), "p99_us": at(0.99), "max_us": at(1.0)}


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(f"python_eventsourcing.py: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
