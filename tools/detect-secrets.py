"""Runs detect-secrets over every tracked file and every version in the history; new findings fail.

    python tools/detect-secrets.py              compare with .secrets.baseline
    python tools/detect-secrets.py --update     take what is there now as the baseline (review the difference!)

A finding is known by the digest of its text and not by its line, so that moving a line is no alarm. The history is
looked at too, which detect-secrets itself does not do.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from detect_secrets.__version__ import VERSION
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

BASELINE = Path(".secrets.baseline")
# Digests by design, or data made of them.
SKIPPED = ("Cargo.lock", ".secrets.baseline", ".scan-secrets-allow")
# All of its detectors but the address of a host, which is no secret.
PLUGINS = [
    {"name": name}
    for name in (
        "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector",
        "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "IbmCloudIamDetector",
        "IbmCosHmacDetector", "JwtTokenDetector", "KeywordDetector", "MailchimpDetector", "NpmDetector",
        "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector",
        "SoftlayerDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
    )
] + [{"name": "HexHighEntropyString", "limit": 3.0}, {"name": "Base64HighEntropyString", "limit": 4.5}]  # fmt: skip
SETTINGS = {
    "plugins_used": PLUGINS,
    "filters_used": [
        {"path": f"detect_secrets.filters.heuristic.{name}"}
        for name in ("is_templated_secret", "is_indirect_reference", "is_prefixed_with_dollar_sign", "is_sequential_string")
    ]
    + [{"path": "detect_secrets.filters.allowlist.is_line_allowlisted"}],
}


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


def versions():
    """(name, bytes) of each version of each file: the working tree's first."""
    for name in git("ls-files", "-z").decode(errors="replace").split("\0"):
        if name and Path(name).is_file():
            yield name, Path(name).read_bytes()
    names = {}
    for line in git("rev-list", "--objects", "--all").decode(errors="replace").splitlines():
        identity, _, name = line.partition(" ")
        if name:
            names.setdefault(identity, name)
    asked = "".join(f"{identity}\n" for identity in names).encode()
    answer = subprocess.run(["git", "cat-file", "--batch"], input=asked, check=True, capture_output=True).stdout
    at = 0
    for name in names.values():
        end = answer.index(b"\n", at)
        (_, kind, size), at = answer[at:end].split(), end + 1
        if kind == b"blob":
            yield name, answer[at : at + int(size)]
        at += int(size) + 1


def found():
    """Maps (file, digest) to the kind and line of the finding."""
    findings, seen = {}, set()
    with tempfile.TemporaryDirectory() as home, transient_settings(SETTINGS):
        for name, content in versions():
            if Path(name).name in SKIPPED or (name, hash(content)) in seen or b"\0" in content:
                continue
            seen.add((name, hash(content)))
            # Under its own name, because some rules depend on the kind of file.
            copy = Path(home) / Path(name).name
            copy.write_bytes(content)
            for secret in scan_file(str(copy)):
                findings.setdefault((name, secret.secret_hash), (secret.type, secret.line_number))
    return findings


def main():
    findings = found()
    if "--update" in sys.argv:
        results = {}
        for (file, digest), (kind, line) in sorted(findings.items()):
            row = {"type": kind, "filename": file, "hashed_secret": digest, "is_verified": False, "line_number": line}
            results.setdefault(file, []).append(row)
        # The tool's own format, so that `detect-secrets audit` works on it too.
        baseline = {"version": VERSION, **SETTINGS, "results": results}
        BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")
        print(f"{len(findings)} findings are the baseline now")
        return 0
    known = {row["hashed_secret"] for rows in json.loads(BASELINE.read_text())["results"].values() for row in rows}
    new = {key: value for key, value in findings.items() if key[1] not in known}
    for (file, digest), (kind, line) in sorted(new.items()):
        print(f"{file}:{line}: {kind} (digest {digest})")
    if new:
        print("If these are not secrets: tools/secrets --update, and say why in the commit.")
        return 1
    print(f"detect-secrets: nothing new, {len(findings)} known findings")
    return 0


sys.exit(main())
