"""Loads trio and pyfuse3 as a daemon needs them; to be imported before either.

What they import besides, TLS with OpenSSL and what reads the metadata of packages, is a fifth of
what an idle daemon would hold.
"""

from overlayd.host.imports import load
from overlayd.kernel import wire as wire  # before pyfuse3


class _Unknown(Exception):
    """Stands for PackageNotFoundError: pyfuse3 takes it that its own version is not known."""


def _version(package: str) -> str:
    raise _Unknown(package)


load(
    "pyfuse3",
    instead={
        "ssl": {},
        "hmac": {},
        "importlib.metadata": {"version": _version, "PackageNotFoundError": _Unknown},
    },
)
