"""How a server is reached and who we say we are: credentials, headers, TLS, proxy."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Mapping

import httpx

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import PrometheusSettings
from coldaisle.sources.text import is_loopback
from coldaisle.sources.tokens import password_of, token_of
from coldaisle.sources.trust import reason_of, trusting

HIDDEN = "[hidden]"


class Access:
    """What the settings say of it. Raises ConfigError where a secret would travel in the clear.

    Secrets are read when they are first needed, and again after :meth:`forget`.
    """

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._headers: Mapping[str, str] | None = None
        self._secrets: tuple[str, ...] = ()
        url = httpx.URL(settings.url)
        self._is_near = is_loopback(url.host)
        if settings.has_secrets and url.scheme != "https" and not (self._is_near or settings.insecure):
            raise ConfigError(
                f"a secret would go to {url.host} in clear text", "use https://, or set insecure = true"
            )

    @property
    def has_credentials(self) -> bool:
        """Whether there is something that may have been renewed when a server refuses us."""
        return self._settings.has_secrets

    async def headers(self) -> Mapping[str, str]:
        """Of every request. Raises ConfigError."""
        if self._headers is None:
            self._headers = await asyncio.to_thread(self._read)
        return self._headers

    def forget(self) -> None:
        """Read the secrets again when they are needed next."""
        self._headers = None

    def hide(self, text: str) -> str:
        """A server's text without our secrets, should it repeat them."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def client(self, limits: httpx.Limits) -> httpx.AsyncClient:
        """Connections to the server; reads files, so call it in a thread. Raises ConfigError."""
        tls = self._tls()
        try:
            return httpx.AsyncClient(
                verify=tls,
                proxy=self._settings.proxy,
                # this machine is never behind a proxy, whatever the environment says of others
                trust_env=not self._is_near,
                limits=limits,
                timeout=None,
                follow_redirects=False,
            )
        except (ImportError, ValueError, httpx.InvalidURL):
            raise ConfigError(
                "the proxy that the environment names cannot be used (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY)",
                'only http:// and https:// proxies can; or write proxy = "http://..."',
            ) from None

    def _read(self) -> Mapping[str, str]:
        settings = self._settings
        headers = {
            name: value if isinstance(value, str) else _from_environment(name, value.env)
            for name, value in settings.headers.items()
        }
        secrets = [headers[name] for name, value in settings.headers.items() if not isinstance(value, str)]
        if token := token_of(settings):
            headers["Authorization"] = f"Bearer {token}"
            secrets.append(token)
        elif settings.user:
            password = password_of(settings)
            pair = base64.b64encode(f"{settings.user}:{password}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {pair}"
            secrets += [pair, password]
        self._secrets = tuple(secrets)
        return headers

    def _tls(self) -> ssl.SSLContext | bool:
        settings = self._settings
        if not settings.url.startswith("https:"):
            return False
        context = trusting(settings.ca)
        if settings.cert:
            try:
                context.load_cert_chain(settings.cert, settings.key, password=_no_password)
            except (OSError, ssl.SSLError, _Encrypted) as error:
                raise ConfigError(
                    f"cert {settings.cert}: {reason_of(error)}",
                    "cert and key are files in PEM format, the key without a pass phrase",
                ) from None
        return context


class _Encrypted(Exception):
    """The key wants a pass phrase; OpenSSL would ask for it on the terminal."""


def _no_password() -> str:
    raise _Encrypted("its key is encrypted")


def _from_environment(name: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value or not value.isascii() or not value.isprintable():
        what = "is not set" if not value else "cannot be sent in a header"
        raise ConfigError(f"headers: {name}: the variable {variable} {what}", f"export {variable}=...")
    return value
