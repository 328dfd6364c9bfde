"""The one part of the package that pyproject.toml cannot say: an extension that may be missing.

Without a compiler, libfuse 3.14's headers or pkg-config the package is built without it, installs
and works; `overlayd.kernel.wire` says what is lost.
"""

import shlex
import subprocess
import sysconfig
from contextlib import suppress

from setuptools import Extension, setup

# One build for every Python from 3.11 on; those without the GIL have no such common interface.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")


def libfuse(question: str) -> list[str]:
    """What the compiler needs to be told, as pkg-config answers; nothing where it cannot."""
    with suppress(OSError, subprocess.CalledProcessError):
        return shlex.split(subprocess.check_output(["pkg-config", question, "fuse3"], text=True))
    return []


setup(
    ext_modules=[
        Extension(
            "overlayd.kernel._wire",
            ["src/overlayd/kernel/_wire.c"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")] if STABLE else [],
            extra_compile_args=["-Wall", "-Wextra", *libfuse("--cflags")],
            extra_link_args=libfuse("--libs") or ["-lfuse3"],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
