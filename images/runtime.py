"""The layer below all others: the Python that runs this, and of the machine's libraries exactly those it needs.

Whatever Python the checkout's virtual environment was made from is what its C extension was built for, so that one
goes into the image: binary and standard library to ``/usr/local``, as in Docker's own Python images, and the shared
libraries that ``ldd`` names to where the dynamic loader looks. No shell, no package database, no compiler.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path
from typing import Final

VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
#: The virtual environment in the image, as a path below its root.
ENVIRONMENT: Final = "opt/chandlery"
PACKAGES: Final = f"{ENVIRONMENT}/lib/python{VERSION}/site-packages"
USER_ID: Final = 10001

# Of the standard library: tests, what needs a display or a terminal, what makes environments; and what would bring
# libraries along that nothing here uses (readline is GPL, nis brings Kerberos).
_LEFT_OUT: Final = (
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "_tkinter.*",
    "curses",
    "_curses*",
    "readline.*",
    "nis.*",
    "config-*",
)
_LIBRARY: Final = re.compile(r"\s(?:\S+ => )?(/\S+) \(0x")
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def put_runtime(root: Path) -> None:
    """Make ``root`` a file system that Python runs in, with an empty virtual environment."""
    _put_base(root)
    library = root / f"usr/local/lib/python{VERSION}"
    shutil.copytree(_standard_library(), library, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    binary = root / "usr/local/bin" / f"python{VERSION}"
    binary.parent.mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), binary)
    for name in ("python3", "python"):
        (binary.parent / name).symlink_to(binary.name)
    _put_environment(root)
    compile_below(library)
    put_libraries(root, root)


def _standard_library() -> Path:
    return Path(re.__file__).resolve().parents[1]


def _put_base(root: Path) -> None:
    for folder in ("dev", "etc/ssl/certs", "proc", "root", "run", "sys", "tmp", "usr/lib", "var/tmp"):
        (root / folder).mkdir(parents=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / folder).mkdir(exist_ok=True)
        (root / folder).symlink_to(f"usr/{folder}")
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/sbin/nologin\n"
        f"chandlery:x:{USER_ID}:{USER_ID}:Chandlery:/tmp:/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/tmp:/sbin/nologin\n",
        encoding="ascii",
    )
    (root / "etc/group").write_text(
        f"root:x:0:\nchandlery:x:{USER_ID}:\nnogroup:x:65534:\n",
        encoding="ascii",
    )
    if _CERTIFICATES.exists():  # exchanges, and Kafka over TLS
        shutil.copyfile(_CERTIFICATES, root / "etc/ssl/certs/ca-certificates.crt")
        # Where this Python's OpenSSL looks when it is told nothing: on Debian a link of a package that isn't here.
        looked_for = root / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
        if not looked_for.exists():
            looked_for.parent.mkdir(parents=True, exist_ok=True)
            looked_for.symlink_to(_CERTIFICATES)


def _put_environment(root: Path) -> None:
    """A virtual environment as ``python -m venv`` makes it, less pip."""
    environment = root / ENVIRONMENT
    (environment / "bin").mkdir(parents=True)
    (root / PACKAGES).mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(
        f"home = /usr/local/bin\ninclude-system-site-packages = false\nversion = {sys.version.split()[0]}\n",
        encoding="ascii",
    )
    for name in ("python", "python3", f"python{VERSION}"):
        (environment / "bin" / name).symlink_to(f"/usr/local/bin/python{VERSION}")


def compile_below(folder: Path) -> None:
    """Compile all Python files, once and for all: a read-only file system can't take the cache of a run.

    Unchecked, because the layer's files have no times that a check could go by.
    """
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # Some packages carry files that aren't meant for this Python; such a file fails when imported, as anywhere.
    subprocess.run([*command, str(folder)], stdout=subprocess.DEVNULL, check=False)


def put_libraries(root: Path, of: Path, known: Container[str] = ()) -> None:
    """Copy into ``root`` the machine's libraries that programs and libraries below ``of`` are linked to.

    What isn't found here is left out: packages carry optional libraries (a display's, in Java) with links of their own.

    Args:
        root: top of the file system that is being made.
        of: a folder in it. What lies there finds its neighbours by itself.
        known: paths, relative to the root, that a layer below has.
    """
    needed = {library for file in _linked_files(of) for library in _libraries_of(file)}
    for library in sorted(needed):
        place = _place_of(library)
        target = root / place
        if library.resolve().is_relative_to(of.resolve()) or str(place) in known or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)
        target.chmod(0o755)


def _linked_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as stream:
                if stream.read(4) == b"\x7fELF":
                    yield file


def _libraries_of(file: Path) -> Iterator[Path]:
    """All libraries that a file needs, with those that they need, as the loader finds them on this machine."""
    listing = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        if found := _LIBRARY.search(line):
            yield Path(found[1])


def _place_of(library: Path) -> str:
    """Where the loader finds a library in the image, relative to the root: where it is, or else beside libc."""
    if not str(library).startswith(("/lib", "/usr/lib")):
        library = _libc().with_name(library.name)
    return "usr/" + str(library).removeprefix("/usr").removeprefix("/")


@cache
def _libc() -> Path:
    for library in _libraries_of(Path(sys.executable).resolve()):
        if library.name.startswith("libc.so"):
            return library
    raise FileNotFoundError("libc of this Python: ldd doesn't name it")
