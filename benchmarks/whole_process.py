"""The whole program against a bare axum server, in one run: `./bench` builds both and calls this.

    whole_process.py BARTIZAN BARE_AXUM [seconds]

1,000 different valid tokens (ten users, each refreshed a hundred times), wrk with one thread and 32 connections, five
rounds in turn, the median of each figure. Prints a Markdown table with the two ratios that are promised.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
USERS, REFRESHES, ROUNDS = 10, 100, 5
MANY = "10000000"


def post(base, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def mint(hello):
    """1,000 access tokens, all valid and all different."""
    base, tenant = hello["api"], hello["tenant"]
    owner = post(base, "/v1/login", {"tenant": tenant, "email": hello["email"], "password": hello["password"]})
    tokens = []
    for number in range(USERS):
        email, password = f"bench{number}@acme.example", f"quiet-harbour-{number}-measures-tides"
        new = {"email": email, "name": f"Bench {number}", "role": "member", "password": password}
        post(base, "/v1/users", new, owner["access_token"])
        pair = post(base, "/v1/login", {"tenant": tenant, "email": email, "password": password})
        for _ in range(REFRESHES):
            pair = post(base, "/v1/token/refresh", {"refresh_token": pair["refresh_token"]})
            tokens.append(pair["access_token"])
    assert len(set(tokens)) == USERS * REFRESHES
    return tokens


def load(base, tokens, seconds, connections=32):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "tokens.lua"), base]
    said = subprocess.run(command, env={**os.environ, "TOKENS": tokens}, check=True, capture_output=True, text=True)
    figures = json.loads(said.stdout.strip().splitlines()[-1])
    if figures["failed"]:
        sys.exit(f"{figures['failed']} of {figures['requests']} requests to {base} failed")
    return figures


def resident(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main():
    bartizan, bare, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10
    env = {name: value for name, value in os.environ.items() if not name.startswith("BARTIZAN_")}
    # Limits stay on, they only have room; tokens live as long as they may, so that none ends during the run.
    for table in ("TIERS__FREE", "TIERS__PRO", "TIERS__ENTERPRISE", "ADDRESS"):
        env[f"BARTIZAN__LIMITS__{table}__PER_MINUTE"] = MANY
        env[f"BARTIZAN__LIMITS__{table}__BURST"] = MANY
    for tier in ("FREE", "PRO", "ENTERPRISE"):
        env[f"BARTIZAN__LIMITS__TIERS__{tier}__TENANT_PER_MINUTE"] = MANY
        env[f"BARTIZAN__LIMITS__TIERS__{tier}__TENANT_BURST"] = MANY
    env["BARTIZAN__TOKENS__ACCESS"] = "15m"
    running = []
    with tempfile.TemporaryDirectory() as home:
        try:
            dev = [bartizan, "dev", "--dir", f"{home}/data", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--json"]
            with open(f"{home}/log", "w") as log:
                running.append(subprocess.Popen(dev, env=env, stdout=subprocess.PIPE, stderr=log, text=True))
            hello = json.loads(running[0].stdout.readline() or sys.exit(Path(f"{home}/log").read_text()))
            idle = resident(running[0])
            running.append(subprocess.Popen([bare], stdout=subprocess.PIPE, text=True))
            peer = running[1].stdout.readline().strip()
            tokens = f"{home}/tokens"
            Path(tokens).write_text("\n".join(mint(hello)) + "\n")
            for base in (hello["api"], peer):
                load(base, tokens, 2)  # warm
            rounds = [(load(peer, tokens, seconds), load(hello["api"], tokens, seconds)) for _ in range(ROUNDS)]
            report(rounds, idle, resident(running[0]), seconds)
        finally:
            for process in running:
                process.kill()
                process.wait()


def report(rounds, idle, loaded, seconds):
    def middle(side, name):
        return statistics.median(pair[side][name] for pair in rounds)

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"\n{os.cpu_count()} cores of {cpu}, {platform.system()} {platform.release()}; wrk -t1 -c32, {seconds} s, "
          f"median of {ROUNDS} rounds in turn, {USERS * REFRESHES} tokens, `GET /v1/whoami`\n")  # fmt: skip
    print("| server | requests/s | p50 ms | p99 ms |\n|---|---:|---:|---:|")
    for side, name in ((0, "bare axum"), (1, "bartizan")):
        print(f"| {name} | {middle(side, 'rps'):,.0f} | {middle(side, 'p50'):.2f} | {middle(side, 'p99'):.2f} |")
    # The ratio of each round, so that what disturbs the machine disturbs both sides of it.
    rate = statistics.median(real["rps"] / bare["rps"] for bare, real in rounds)
    tail = statistics.median(real["p99"] / bare["p99"] for bare, real in rounds)
    print(f"| ratio | {rate:.2f} (promised ≥ 0.75) | | {tail:.2f} (promised ≤ 1.5) |")
    print(f"\nResident memory: {idle:.1f} MB idle (promised < 40), {loaded:.1f} MB after the run.")


if __name__ == "__main__":
    main()
