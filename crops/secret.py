"""Secrets: read from where they are kept, never empty, and one key of each per purpose."""

import functools
import hashlib
import hmac
import os
from pathlib import Path

from crops.errors import ConfigError


def read(path: Path) -> bytes:
    """The secret in the file, without white space around it; a ConfigError where there is none: an empty
    secret would let everybody in.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{path}: the secret cannot be read: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"{path}: the secret is empty")
    return secret


def text(secret: bytes, source: Path | str) -> str:
    """A secret that goes into a header or is compared with one; a ConfigError where it is no text."""
    try:
        return secret.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: the secret is not UTF-8 text") from error


def given(path: Path | None, variable: str) -> bytes | None:
    """The secret of the file, else of the environment's `variable`; None where neither is said."""
    if path is not None:
        return read(path)
    value = os.environ.get(variable)
    if value is not None and not value.strip():
        raise ConfigError(f"{variable}: the secret is empty; unset it to have none")
    return value.strip().encode() if value else None


@functools.lru_cache(maxsize=64)
def derived(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose alone: what it signs or hides says nothing of another purpose's.

    HKDF with SHA-256 and no salt, RFC 5869; `purpose` is its info.
    """
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)
