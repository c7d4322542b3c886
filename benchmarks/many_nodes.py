"""One node of many: embedded, replicated with leases, and strict, against a bare axum server and a FastAPI stack, in one run.

    many_nodes.py BARTIZAN BARE_AXUM [--seconds 10] [--rounds 5] [--refreshes 100] [--connections 32]
        [--only NAME,NAME]

Starts PostgreSQL and Redis of its own on free ports, with a Redis to itself for the peer, and three Bartizan nodes, each
with a database and a prefix of its own. `wrk` drives one after the other with one thread; the median of
the rounds is printed as a Markdown table with the ratios that are promised. The peer's packages are installed into
`target/peers` the first time (or PEER_PYTHON names a Python that has them). A short run to see that it works:
`--seconds 1 --rounds 1 --refreshes 5`.
"""

import argparse
import json
import os
import platform
import pwd
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path

import whole_process
from whole_process import HERE, MANY, load, mint

# What is promised of a pair: the first's rate is at least so many times the second's.
PROMISES = (("replicated", "embedded", 0.85), ("strict", "bare axum", 0.35), ("strict", "fastapi", 15))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(ready, what, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.05)
    sys.exit(f"{what} does not get ready")


class World:
    """Everything that was started, and how to end it."""

    def __init__(self, stack):
        self.stack = stack
        self.home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-nodes-")))
        self.home.chmod(0o711)

    def start(self, name, command, stdout=None, **options):
        log = open(self.home / f"{name}.log", "w")
        process = subprocess.Popen(command, stdout=stdout or log, stderr=log, text=True, start_new_session=True, **options)
        self.stack.callback(self.end, process, log)
        return process

    def end(self, process, log):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()

    def log(self, name):
        return (self.home / f"{name}.log").read_text()


class Postgres:
    """A server with durable commits, as `initdb` makes it."""

    def __init__(self, world):
        tools = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        initdb = shutil.which("initdb") or (tools and str(tools[-1])) or sys.exit("PostgreSQL is not installed")
        self.tools = Path(initdb).resolve().parent
        # The server refuses to run as root.
        self.owner = {"user": "postgres", "cwd": "/"} if os.geteuid() == 0 else {}
        data = world.home / "postgres"
        data.mkdir(0o700)
        if self.owner:
            os.chown(data, *pwd.getpwnam("postgres")[2:4])
        quiet = {"check": True, "stdout": subprocess.DEVNULL, **self.owner}
        subprocess.run([initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"], **quiet)
        self.port = free_port()
        world.start("postgres", [self.tools / "postgres", "-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", data,
                                 "-c", "max_connections=200"], **self.owner)  # fmt: skip
        ready = [self.tools / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL")

    def database(self, name):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "bench"]
        subprocess.run([self.tools / "createdb", *where, "-E", "UTF8", "-T", "template0", name], check=True, **self.owner)
        return f"postgres://bench@127.0.0.1:{self.port}/{name}"


class Redis:
    """A server that keeps everything in memory: what is measured is not its disk."""

    def __init__(self, world, name):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        world.start(name, ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                           "--appendonly", "no", "--maxmemory-policy", "noeviction"])  # fmt: skip
        until(self.answers, "Redis")

    def say(self, word):
        with socket.create_connection(("127.0.0.1", self.port), 5) as link, link.makefile("rwb") as lines:
            lines.write(f"{word}\r\n".encode())
            lines.flush()
            first = lines.readline().decode()
            return lines.read(int(first[1:])).decode() if first.startswith("$") else first

    def answers(self):
        try:
            return self.say("PING").startswith("+PONG")
        except OSError:
            return False

    def cpu(self):
        """Seconds of CPU it has used."""
        lines = dict(line.split(":") for line in self.say("INFO cpu").splitlines() if ":" in line)
        return float(lines["used_cpu_sys"]) + float(lines["used_cpu_user"])


def bartizan(world, binary, name, changes):
    """A node with demo data, room in every limit, and `changes` to its configuration: where it is, and its tokens."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("BARTIZAN_")}
    for table in ("TIERS__FREE", "TIERS__PRO", "TIERS__ENTERPRISE", "ADDRESS"):
        env[f"BARTIZAN__LIMITS__{table}__PER_MINUTE"] = MANY
        env[f"BARTIZAN__LIMITS__{table}__BURST"] = MANY
    for tier in ("FREE", "PRO", "ENTERPRISE"):
        env[f"BARTIZAN__LIMITS__TIERS__{tier}__TENANT_PER_MINUTE"] = MANY
        env[f"BARTIZAN__LIMITS__TIERS__{tier}__TENANT_BURST"] = MANY
    env["BARTIZAN__TOKENS__ACCESS"] = "15m"
    env.update({f"BARTIZAN__{key}": value for key, value in changes.items()})
    command = [binary, "dev", "--dir", world.home / name, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--json"]
    node = world.start(name, command, stdout=subprocess.PIPE, env=env)
    hello = json.loads(node.stdout.readline() or sys.exit(world.log(name)))
    return hello["api"], mint(hello)


def bare_axum(world, binary):
    server = world.start("bare", [binary], stdout=subprocess.PIPE)
    return server.stdout.readline().strip() or sys.exit(world.log("bare"))


def peer_python():
    """A Python with the peer's packages."""
    if os.environ.get("PEER_PYTHON"):
        return os.environ["PEER_PYTHON"]
    wanted = HERE / "peers/requirements.txt"
    place = HERE.parent / "target/peers"
    python, mark = place / "bin/python", place / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", wanted], check=True)
        shutil.copy(wanted, mark)
    return python


def fastapi(world, redis, tokens):
    """The peer with two processes, and as many different tokens."""
    python, port, secret = peer_python(), free_port(), secrets.token_urlsafe(48)
    env = {**os.environ, "REDIS_URL": redis.url, "JWT_SECRET": secret, "PYTHONPATH": str(HERE / "peers")}
    command = [python, "-m", "uvicorn", "fastapi_redis:app", "--host", "127.0.0.1", "--port", str(port), "--workers", "2",
               "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]  # fmt: skip
    world.start("fastapi", command, env=env)
    sign = """
import json, sys, time, uuid, jwt
secret, number, users = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
now = int(time.time())
for n in range(number):
    claims = {"iss": "http://bench", "aud": "bench", "iat": now, "exp": now + 7200, "jti": uuid.uuid4().hex, "tier": "free",
              "role": "member", "tenant": users[0], "sub": users[n * len(users) // number], "sid": "ses_" + uuid.uuid4().hex}
    print(jwt.encode(claims, secret, algorithm="HS256"))
"""
    users = json.dumps([f"usr_{uuid.uuid4().hex}" for _ in range(whole_process.USERS)])
    made = subprocess.run([python, "-c", sign, secret, str(tokens), users], check=True, capture_output=True, text=True)
    base = f"http://127.0.0.1:{port}"

    def answers():
        try:
            urllib.request.urlopen(base + "/v1/whoami", timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    until(answers, f"uvicorn ({world.home}/fastapi.log)")
    return base, made.stdout.split()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bartizan")
    parser.add_argument("bare_axum")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--refreshes", type=int, default=whole_process.REFRESHES)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", default="", help="names of servers, with commas between")
    args = parser.parse_args()
    whole_process.REFRESHES = args.refreshes
    with ExitStack() as stack:
        world = World(stack)
        postgres, state, peers = Postgres(world), Redis(world, "redis"), Redis(world, "redis-peer")

        def shared(mode, prefix):
            return {"DATABASE__URL": postgres.database(mode), "STATE__URL": state.url, "STATE__PREFIX": prefix,
                    "REVOCATION__MODE": mode}  # fmt: skip

        makers = {
            "embedded": lambda: (*bartizan(world, args.bartizan, "embedded", {}), None),
            "replicated": lambda: (*bartizan(world, args.bartizan, "replicated", shared("replicated", "r:")), state),
            "strict": lambda: (*bartizan(world, args.bartizan, "strict", shared("strict", "s:")), state),
            # It reads the same requests as the others: the tokens of the first of them.
            "bare axum": lambda: (bare_axum(world, args.bare_axum), [], None),
            "fastapi": lambda: (*fastapi(world, peers, whole_process.USERS * args.refreshes), peers),
        }
        only = [name for name in args.only.split(",") if name] or list(makers)
        servers = {}
        for name in only:
            base, tokens, redis = makers[name]()
            file = world.home / f"{name}.tokens"
            file.write_text("\n".join(tokens) + "\n")
            servers[name] = (base, str(file), redis)
        lent = next((tokens for name, (_, tokens, _) in servers.items() if name != "bare axum"), None)
        if lent and "bare axum" in servers:
            Path(servers["bare axum"][1]).write_text(Path(lent).read_text())
        for name, (base, tokens, _) in servers.items():
            load(base, tokens, min(2, args.seconds), args.connections)  # warm
        rounds = [{name: drive(*server, args) for name, server in servers.items()} for _ in range(args.rounds)]
        report(rounds, args)


def drive(base, tokens, redis, args):
    before = redis.cpu() if redis else 0
    figures = load(base, tokens, args.seconds, args.connections)
    figures["store"] = (redis.cpu() - before) / figures["requests"] * 1e6 if redis else 0
    return figures


def report(rounds, args):
    def middle(name, figure):
        return statistics.median(each[name][figure] for each in rounds)

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"\n{os.cpu_count()} cores of {cpu}, {platform.system()} {platform.release()}; servers, stores and `wrk -t1 -c{args.connections}` "
          f"on this machine, {args.seconds} s, median of {args.rounds} rounds in turn, "
          f"{whole_process.USERS * args.refreshes} tokens, `GET /v1/whoami`\n")  # fmt: skip
    print("| server | requests/s | p50 ms | p99 ms | CPU of Redis, µs a request |\n|---|---:|---:|---:|---:|")
    for name in rounds[0]:
        store = middle(name, "store")
        print(f"| {name} | {middle(name, 'rps'):,.0f} | {middle(name, 'p50'):.2f} | {middle(name, 'p99'):.2f} "
              f"| {f'{store:.1f}' if store else '—'} |")  # fmt: skip
    print("\n| ratio of rates | found | promised | |\n|---|---:|---:|---|")
    for one, other, least in PROMISES:
        if one in rounds[0] and other in rounds[0]:
            # The ratio of each round, so that what disturbs the machine disturbs both sides of it.
            ratio = statistics.median(each[one]["rps"] / each[other]["rps"] for each in rounds)
            print(f"| {one} / {other} | {ratio:.2f} | ≥ {least} | {'holds' if ratio >= least else 'falls short'} |")


if __name__ == "__main__":
    main()
