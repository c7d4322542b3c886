"""PyJWT as a second opinion.

Reads one JSON line {issuer, audience, jwks, pkcs8, kid, claims}, then one token a line until the end.
Writes a token of its own over `claims`, then for each token `accept` or `refuse <why>`.
"""

import base64
import json
import sys

import jwt
from cryptography.hazmat.primitives.serialization import load_der_private_key

REQUIRED = ["iss", "aud", "exp", "iat", "sub", "jti"]


def main():
    order = json.loads(sys.stdin.readline())
    keys = {jwk["kid"]: jwt.PyJWK.from_dict(jwk) for jwk in order["jwks"]["keys"]}
    private = load_der_private_key(base64.b64decode(order["pkcs8"]), None)
    print(
        jwt.encode(
            order["claims"], private, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": order["kid"]}
        )
    )
    for line in sys.stdin:
        try:
            token = json.loads(line)
            key = keys[jwt.get_unverified_header(token)["kid"]]
            jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],
                issuer=order["issuer"],
                audience=order["audience"],
                leeway=300,
                options={"require": REQUIRED, "strict_aud": True},
            )
            print("accept")
        except Exception as error:
            print("refuse", type(error).__name__, ascii(str(error)))


main()
