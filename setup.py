"""The one thing pyproject.toml can't say: source roots of the namespace package, and the C extension."""

import sys
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup

SEGMENT = "workers/chandlery/workers/segment"
ROOTS = ["core", "stream", "workers", "operator", "console", "cli"]

package_dir: dict[str, str] = {}
packages: list[str] = []
for root in ROOTS:
    for package in find_namespace_packages(root, include=["chandlery.*"]):
        packages.append(package)
        package_dir[package] = str(Path(root, *package.split(".")))

setup(
    packages=packages,
    package_dir=package_dir,
    ext_modules=[
        Extension(
            "chandlery.workers.segment._native",
            sources=[
                f"{SEGMENT}/{name}.c" for name in ("_native", "mapping", "view", "writer", "reader", "series", "window")
            ],
            depends=[f"{SEGMENT}/{name}.h" for name in ("layout", "access", "protocol", "native")],
            # Workers run on Linux alone; elsewhere `kubectl chandlery` does without it.
            optional=sys.platform != "linux",
            extra_compile_args=[
                "-std=c11",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fvisibility=hidden",
                "-D_GNU_SOURCE",
            ],
        )
    ],
)
