"""Keeps schemathesis logged in: a run ends sessions and disables users, since that is among what it tries."""

import os
import secrets

import requests
import schemathesis

BASE = os.environ["BASE"]


@schemathesis.auth(refresh_interval=None)
class Login:
    """A live access token of the owner; a new one when the last one was ended."""

    def __init__(self):
        self.token = None
        self.who = {name.lower(): os.environ[name] for name in ("TENANT", "EMAIL", "PASSWORD")}

    def get(self, case, context):
        if self.token is None or self.ask(self.token).status_code == 401:
            answer = requests.post(f"{BASE}/v1/login", json=self.who, timeout=30)
            if answer.status_code == 401:
                # It made other owners and then disabled or deleted itself: it goes on as somebody new.
                answer = self.start_anew()
            answer.raise_for_status()
            self.token = answer.json()["access_token"]
        return self.token

    def start_anew(self):
        name = f"scan-{secrets.token_hex(6)}"
        self.who = {"tenant": name, "email": f"{name}@scan.example", "password": secrets.token_urlsafe(24)}
        requests.post(f"{BASE}/v1/signup", json={"name": "Scanner", **self.who}, timeout=30).raise_for_status()
        return requests.post(f"{BASE}/v1/login", json=self.who, timeout=30)

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"

    @staticmethod
    def ask(token):
        return requests.get(f"{BASE}/v1/whoami", headers={"Authorization": f"Bearer {token}"}, timeout=30)
