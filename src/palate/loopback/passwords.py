"""The server's side of two-step verification (SRP with 2048 bits): https://core.telegram.org/api/srp

One challenge for all, since nothing here is secret.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from telethon.password import compute_digest
from telethon.tl import types

_PRIME = bytes.fromhex(
    "c71caeb9c6b1c9048e6c522f70f13f73980d40238e3e21c14934d037563d930f48198a0aa7c14058229493d22530f4dbfa336f6e0ac925139543"
    "aed44cce7c3720fd51f69458705ac68cd4fe6b6b13abdc9746512969328454f18faf8c595f642477fe96bb2a941d5bcd1d4ac8cc49880708fa9b"
    "378e3c4f3a9060bee67cf9a4a4a695811051907e162753b56b0f6b410dba74d8a84b2a14b3144e0ef1284754fd17ed950d5965b4b9dd46582db1"
    "178d169c6bc465b0d6ff9ca3928fef5b9ae4e418fc15e83ebea0f87fa9ff5eed70050ded2849f47bf959d956850ce929851f0d8115f635b105ee"
    "2e4e15d04b2454bf6f4fadf034b10403119cd8e3b92fcc5b"
)
_P, _G = int.from_bytes(_PRIME, "big"), 3
_ALGORITHM = types.PasswordKdfAlgoSHA256SHA256PBKDF2HMACSHA512iter100000SHA256ModPow(
    b"salt one", b"salt two", _G, _PRIME
)
_SECRET = int.from_bytes(sha256(b"a loopback server keeps no secrets").digest() * 8, "big")


def challenge(password: str) -> Any:
    """What the client needs to prove that it knows the password."""
    public = (_multiplier() * _verifier(password) + pow(_G, _SECRET, _P)) % _P
    return types.account.Password(
        new_algo=_ALGORITHM,
        new_secure_algo=types.SecurePasswordKdfAlgoUnknown(),
        secure_random=b"",
        has_password=True,
        current_algo=_ALGORITHM,
        srp_B=_number(public),
        srp_id=1,
    )


def fits(password: str, proof: Any) -> bool:
    """Whether a client's answer to the challenge proves that it knows the password."""
    theirs = int.from_bytes(proof.A, "big")
    ours = challenge(password).srp_B
    mix = int.from_bytes(_hash(_number(theirs), ours), "big")
    shared = pow(theirs * pow(_verifier(password), mix, _P), _SECRET, _P)
    group = bytes(a ^ b for a, b in zip(_hash(_PRIME), _hash(_number(_G)), strict=True))
    salts = _hash(_ALGORITHM.salt1) + _hash(_ALGORITHM.salt2)
    return bool(_hash(group, salts, _number(theirs), ours, _hash(_number(shared))) == proof.M1)


def _verifier(password: str) -> int:
    return int.from_bytes(compute_digest(_ALGORITHM, password), "big")


def _multiplier() -> int:
    return int.from_bytes(_hash(_PRIME, _number(_G)), "big")


def _number(value: int) -> bytes:
    return value.to_bytes(256, "big")


def _hash(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()
