"""Whose certificates are trusted over TLS: for exporters and for Prometheus-compatible servers."""

from __future__ import annotations

import ssl

import httpx

from coldaisle.sources.errors import ConfigError


def trusting(ca: str | None) -> ssl.SSLContext:
    """These authorities, else the system's, else those that come with httpx. Reads files; raises ConfigError."""
    paths = ssl.get_default_verify_paths()
    if not (ca or paths.cafile or paths.capath):
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca {ca}: {reason_of(error)}", "it is a file in PEM format") from None


def reason_of(error: Exception) -> str:
    """Why a file of certificates, or of their key, cannot be used."""
    if isinstance(error, ssl.SSLError):
        return "not a certificate, or a key that is not its own"
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
