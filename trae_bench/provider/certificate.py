"""A certificate authority for one run, and who has to know of it."""

import os
from pathlib import Path

from msgspec import Struct

from trae_bench.errors import UsageError

_READ_BY = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Environment variables from which clients take the authorities that they trust."""


class Certificate(Struct, frozen=True):
    """Files in PEM."""

    chain: Path
    """Key and certificate of the server."""
    bundle: Path
    """The authorities that clients shall trust."""

    @property
    def environ(self) -> dict[str, str]:
        """What a client's environment must say."""
        return dict.fromkeys(_READ_BY, str(self.bundle))


def make_certificate(folder: Path, host: str) -> Certificate:
    """For `host`, into an existing folder. Raises `UsageError` without the package trustme."""
    try:
        import trustme  # it brings a cryptography library with it, so it is an extra
    except ImportError as error:
        raise UsageError(
            "a provider that speaks TLS needs the package trustme; pip install 'trae-bench[tls]'"
        ) from error
    authority = trustme.CA(organization_name="trae-bench scripted provider")
    server = authority.issue_cert(host, "localhost")
    made = Certificate(folder / "server.pem", folder / "authorities.pem")
    made.chain.touch(mode=0o600)
    server.private_key_and_cert_chain_pem.write_to_path(str(made.chain))
    made.bundle.write_bytes(_usual_authorities() + b"\n" + authority.cert_pem.bytes())
    return made


def _usual_authorities() -> bytes:
    """What a client would have read otherwise.

    Reading it is most of what a TLS context costs. A file with the run's own authority alone
    would make that look free.
    """
    if named := os.environ.get("SSL_CERT_FILE"):
        return Path(named).read_bytes()
    import certifi  # httpx stands on it

    return Path(certifi.where()).read_bytes()
