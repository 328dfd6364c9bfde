"""The images that the tests run: overlayd's from its Containerfile, busybox, a guest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from container.base_image import write_base_image, write_busybox_image
from container.manifests import CONTAINERFILE, ROOT, compose, kubernetes, packages, stages
from container.sandbox import Sandbox

BUSYBOX = "docker.io/library/busybox"
OVERLAYD = "overlayd"

_FROM_SOURCE = "pyfuse3"
_BUILD_REQUIREMENTS = ("Cython", "setuptools>=78.1.1", "setuptools_scm>=8")


def build_images(box: Sandbox) -> str:
    """Build overlayd's image from the Containerfile, in BOX; what the build said.

    There is no registry and no network inside: base images come from this machine's Debian
    packages, Python packages from wherever its pip has them.
    """
    build, final = stages()
    default_base = CONTAINERFILE.read_text().partition("ARG BASE=")[2].split()[0]
    wheels = box.place / "wheels"
    with ThreadPoolExecutor() as pool:
        fetching = pool.submit(fetch_packages, wheels)
        _import_bases(box, ((default_base, packages(final)), ("build-base", packages(build))))
        fetching.result()
    said = _build(box, wheels)
    _, pod = kubernetes()
    for container in pod["spec"]["initContainers"]:
        if container["name"] == "overlayd":
            box.podman("tag", OVERLAYD, container["image"])
    assert compose()["overlayd"]["image"] == OVERLAYD
    return said


def _import_bases(box: Sandbox, bases: Iterable[tuple[str, list[str]]]) -> None:
    tar = box.place / "store" / "tmp" / "image.tar"
    for name, asked in bases:
        write_base_image(box.view(tar), asked)
        box.podman("import", "--quiet", str(tar), name)
    write_busybox_image(box.view(tar))
    box.podman("import", "--quiet", str(tar), BUSYBOX)
    box.view(tar).unlink()


def fetch_packages(wheels: Path) -> None:
    """What the build installs, into the directory WHEELS: as wheels, and pyfuse3 as source."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
    _run(*pip, "--no-deps", "--no-binary", _FROM_SOURCE, _FROM_SOURCE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    others = [name for name in project["dependencies"] if not name.startswith(_FROM_SOURCE)]
    _run(*pip, *others, *_BUILD_REQUIREMENTS)


def _build(box: Sandbox, wheels: Path) -> str:
    arguments = {"BUILD_BASE": "build-base", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse"}
    flags = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    # chroot: a build's own cgroups and networks are more than some machines allow in a test.
    flags += ["--isolation=chroot", "--pull=never", "--layers=false", "--format=docker"]
    flags += [f"--volume={wheels}:/wheelhouse:ro", f"--file={CONTAINERFILE}"]
    return box.podman("build", *flags, f"--tag={OVERLAYD}", str(ROOT), seconds=600)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
