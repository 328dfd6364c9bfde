"""The one part of the package that pyproject.toml cannot say: extensions that may be missing.

Without a compiler, libfuse 3.14's headers or pkg-config the package is built without, installs and
works; `overlayd.kernel.wire` says what is lost, and `overlayd.host` does the same by ctypes.
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


def extension(name: str, compile_args: list[str], link_args: list[str], *others: str) -> Extension:
    """The extension module *name*, from the source file beside where it belongs, and *others*."""
    return Extension(
        name,
        [f"src/{path.replace('.', '/')}.c" for path in (name, *others)],
        depends=[f"src/{path.replace('.', '/')}.h" for path in others],
        define_macros=[("Py_LIMITED_API", "0x030b0000")] if STABLE else [],
        extra_compile_args=["-Wall", "-Wextra", *compile_args],
        extra_link_args=link_args,
        py_limited_api=STABLE,
        optional=True,
    )


setup(
    ext_modules=[
        extension(
            "overlayd.kernel._wire",
            libfuse("--cflags"),
            [*(libfuse("--libs") or ["-lfuse3"]), "-pthread"],
            "overlayd.kernel._answers",
            "overlayd.kernel._moves",
            "overlayd.kernel._pipes",
            "overlayd.kernel._requests",
            "overlayd.kernel._threads",
        ),
        extension("overlayd.host._calls", ["-D_GNU_SOURCE"], []),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
