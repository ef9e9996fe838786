"""Fixtures that several modules use."""

import ssl
from pathlib import Path

import pytest
import trustme

from agent_core import _http


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """A server context for localhost, and an environment that trusts it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(_http, "_CONTEXTS", {})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home and the current folder of a process under test."""
    path = tmp_path / "home"
    path.mkdir()
    return path
