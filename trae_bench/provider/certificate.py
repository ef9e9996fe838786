"""A certificate authority for one run, and the environment that makes clients trust it."""

import os
from pathlib import Path

from msgspec import Struct

from trae_bench.errors import UsageError

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Environment variables that name a client's CA bundle."""


class Certificate(Struct, frozen=True):
    """PEM files."""

    chain: Path
    """Private key and certificate of the server."""
    bundle: Path
    """Certificate authorities for clients."""

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment variables of a client."""
        return dict.fromkeys(_VARIABLES, str(self.bundle))


def make_certificate(folder: Path, host: str) -> Certificate:
    """Create a certificate for `host` in an existing folder.

    Raises `UsageError` if the package trustme is missing.
    """
    try:
        import trustme  # an extra, because it needs a cryptography library
    except ImportError as error:
        raise UsageError(
            "a provider with TLS needs the package trustme; pip install 'trae-bench[tls]'"
        ) from error
    authority = trustme.CA(organization_name="trae-bench scripted provider")
    server = authority.issue_cert(host, "localhost")
    certificate = Certificate(folder / "server.pem", folder / "authorities.pem")
    certificate.chain.touch(mode=0o600)
    server.private_key_and_cert_chain_pem.write_to_path(str(certificate.chain))
    certificate.bundle.write_bytes(_default_bundle() + b"\n" + authority.cert_pem.bytes())
    return certificate


def _default_bundle() -> bytes:
    """Return the CA bundle that a client reads by default.

    Reading it is most of the cost of a TLS context. A bundle with the run's authority alone
    would hide that cost.
    """
    if path := os.environ.get("SSL_CERT_FILE"):
        return Path(path).read_bytes()
    import certifi  # a dependency of httpx

    return Path(certifi.where()).read_bytes()
