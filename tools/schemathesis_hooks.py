"""Keeps schemathesis logged in: a run ends sessions, since that is among what it tries."""

import os

import requests
import schemathesis

BASE = os.environ["BASE"]


@schemathesis.auth(refresh_interval=None)
class Login:
    """A live access token of the owner; a new one when the last one was ended."""

    def __init__(self):
        self.token = None

    def get(self, case, context):
        if self.token is None or self.ask(self.token).status_code == 401:
            who = {name.lower(): os.environ[name] for name in ("TENANT", "EMAIL", "PASSWORD")}
            answer = requests.post(f"{BASE}/v1/login", json=who, timeout=30)
            answer.raise_for_status()
            self.token = answer.json()["access_token"]
        return self.token

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"

    @staticmethod
    def ask(token):
        return requests.get(f"{BASE}/v1/whoami", headers={"Authorization": f"Bearer {token}"}, timeout=30)
