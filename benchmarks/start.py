"""How long a start takes with a million revocations in force: `python3 benchmarks/start.py BARTIZAN [number]`.

Starts the program once, stops it, writes the rows as the program would have, starts it again and waits for the line that
says it serves.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def start(binary, home):
    command = [binary, "dev", "--dir", home, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    json.loads(process.stdout.readline())
    return process, time.monotonic() - began


def resident(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def stop(process):
    process.terminate()
    process.wait()


def main():
    binary, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as home:
        process, first = start(binary, home)
        idle_first = resident(process)
        stop(process)
        process, empty = start(binary, home)
        time.sleep(2)
        idle = resident(process)
        stop(process)
        until = int(time.time() * 1000) + 16 * 60 * 1000
        with sqlite3.connect(f"{home}/data/bartizan.db") as database:
            rows = ((f"evt_{i:032x}", "session", f"ses_{os.urandom(16).hex()}", "", until) for i in range(number))
            database.executemany("INSERT INTO effects (event_id, kind, subject, value, until) VALUES (?, ?, ?, ?, ?)", rows)
        process, full = start(binary, home)
        print(f"first start {first:.2f} s ({idle_first:.1f} MB just after), empty {empty:.2f} s ({idle:.1f} MB idle), "
              f"with {number:,} revocations {full:.2f} s ({resident(process):.1f} MB)")  # fmt: skip
        stop(process)


main()
