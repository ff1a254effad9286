"""Make images: layers, each kept in the cache under a key of all that it is made from, put together into archives.

Layers, from the lowest: the runtime; a role's packages, which change with its lock; for Kafka its jars; Chandlery.
A second run with nothing changed copies files, and one with changed sources builds the last layer alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.archive import ImageSettings, Layer, read_layer, write_image, write_layer
from images.roles import FOLDER, ROLES, ROOT, Role
from images.runtime import ENVIRONMENT, PACKAGES, USER_ID, compile_below, put_libraries, put_runtime

from chandlery.core.errors import ChandleryError
from chandlery.stream.broker_jars import install_jars, kafka_cache

Progress = Callable[[str], None]

#: Where images say they come from: no registry, so that nobody pulls what was loaded by hand.
REGISTRY: Final = "localhost"
_SOURCE_FOLDERS: Final = ("core", "stream", "workers", "operator", "console", "cli")
_SOURCE_FILES: Final = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")
_NO_SOURCES: Final = ("__pycache__", "*.pyc", "*.so", "*.egg-info", "build", ".*_cache")
#: The cache of the images' own broker: where chandlery.stream.broker_jars looks for the jars.
_IMAGE_CACHE: Final = f"{ENVIRONMENT}/cache"
_KEY_DIGITS: Final = 12


class ImageError(Exception):
    """An image can't be made. The message says what failed."""


@dataclass(frozen=True)
class MadeImage:
    """An image's name, which changes with its content, and its archive."""

    role: str
    name: str
    archive: Path


def make_images(roles: Iterable[str], out: Path, progress: Progress) -> list[MadeImage]:
    """Make images of these roles in the folder ``out``; what is there already is left as it is."""
    out.mkdir(parents=True, exist_ok=True)
    return [_make(ROLES[name], out, progress) for name in roles]


def _make(role: Role, out: Path, progress: Progress) -> MadeImage:
    layers = list(_layers(role, progress))
    key = _digest(repr(role), *(layer.sha256 for layer in layers))
    archive = out / f"{role.name}.tar"
    made = MadeImage(role.name, f"{REGISTRY}/chandlery-{role.name}:{key}", archive)
    label = out / f"{role.name}.name"
    if not (archive.exists() and label.exists() and label.read_text(encoding="utf-8") == made.name):
        label.unlink(missing_ok=True)
        write_image(archive, made.name, layers, _settings(role))
        label.write_text(made.name, encoding="utf-8")
        progress(f"made {made.name}: {archive.stat().st_size / 1e6:.0f} MB")
    return made


def _settings(role: Role) -> ImageSettings:
    environment = {
        "PATH": f"/{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
    }
    if role.has_kafka:
        environment["CHANDLERY_CACHE"] = f"/{_IMAGE_CACHE}"
    return ImageSettings(role.entrypoint, environment, f"{USER_ID}:{USER_ID}")


def _layers(role: Role, progress: Progress) -> Iterator[Layer]:
    python = _python_key()
    runtime = _cached("runtime", _digest(python), put_runtime, progress)
    yield runtime

    def put_packages(root: Path) -> None:
        _install(root, "--require-hashes", "-r", str(role.lock_file))
        with tarfile.open(runtime.file) as tar:
            known = set(tar.getnames())
        put_libraries(root, root / PACKAGES, known)

    locked = role.lock_file.read_text(encoding="utf-8")
    yield _cached(f"packages-{role.name}", _digest(python, locked), put_packages, progress)
    if role.has_kafka:
        jars = ROOT / "stream/chandlery/stream/kafka"
        yield _cached("kafka", _digest(*_contents(jars, "*.lock")), _put_jars, progress)
    yield _cached("chandlery", _digest(python, *_source_contents()), _put_chandlery, progress)


def _python_key() -> str:
    """This Python, its machine, and the recipe of what every layer has."""
    recipe = "".join(_contents(FOLDER, "*.py"))
    return f"{sys.version} {sys.base_prefix} {os.uname().machine} {recipe}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_KEY_DIGITS]


def _contents(folder: Path, pattern: str) -> Iterator[str]:
    for file in sorted(folder.glob(pattern)):
        yield f"{file.name}\0{file.read_text(encoding='utf-8')}"


def _source_contents() -> Iterator[str]:
    """Names and digests of all files that the distribution is made from."""
    ignored = shutil.ignore_patterns(*_NO_SOURCES)
    for name in _SOURCE_FOLDERS:
        for folder, folders, files in os.walk(ROOT / name):
            folders[:] = sorted(set(folders) - ignored(folder, folders))
            for file in sorted(set(files) - ignored(folder, files)):
                path = Path(folder, file)
                yield f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    for name in _SOURCE_FILES:
        yield f"{name} {hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}"


def _cached(name: str, key: str, put: Callable[[Path], None], progress: Progress) -> Layer:
    """The layer of that key, made by ``put`` if the cache doesn't have it."""
    folder = _cache_folder()
    file = folder / f"{name}-{key}.tar"
    if not file.exists():
        progress(f"making layer {name}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="chandlery-image-") as temporary:
            root = Path(temporary, "root")
            root.mkdir()
            put(root)
            draft = folder / f".{file.name}.{os.getpid()}"
            try:
                write_layer(draft, {root: ""})
                draft.replace(file)
            finally:
                draft.unlink(missing_ok=True)
        _forget_old(folder, name)
    return read_layer(file)


def _cache_folder() -> Path:
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CHANDLERY_CACHE") or user / "chandlery") / "images"


def _forget_old(folder: Path, name: str, kept: int = 4) -> None:
    """Keep the newest few layers of a name: enough for several checkouts, without growing for ever."""
    files = sorted(folder.glob(f"{name}-{'[0-9a-f]' * _KEY_DIGITS}.tar"), key=lambda file: file.stat().st_mtime)
    for file in files[:-kept]:
        file.unlink(missing_ok=True)


def _install(root: Path, *what: str) -> None:
    """Install packages into the image's environment by this Python's pip, and compile them."""
    target = root / PACKAGES
    options = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-compile", "--no-deps")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    # Where it was built from, in a temporary folder: no use to anybody, and another each time.
    for file in target.glob("*.dist-info/direct_url.json"):
        file.unlink()
    shutil.rmtree(target / "bin", ignore_errors=True)
    compile_below(target)


def _put_chandlery(root: Path) -> None:
    """Build the distribution with its C extension from a copy of the sources, and install it with its command."""
    with tempfile.TemporaryDirectory(prefix="chandlery-sources-") as temporary:
        copy = Path(temporary)
        for name in _SOURCE_FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*_NO_SOURCES))
        for name in _SOURCE_FILES:
            shutil.copyfile(ROOT / name, copy / name)
        _install(root, "--no-build-isolation", str(copy))
    command = root / ENVIRONMENT / "bin" / "chandlery"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(
        f"#!/{ENVIRONMENT}/bin/python\nimport sys\n\nfrom chandlery.cli.main import main\n\nsys.exit(main())\n",
        encoding="ascii",
    )
    command.chmod(0o755)


def _put_jars(root: Path) -> None:
    """Kafka's jars, exactly those that the lock names, from Chandlery's cache or from where it fills it."""
    target = kafka_cache(root / _IMAGE_CACHE)
    target.mkdir(parents=True)
    try:
        for jar in install_jars(kafka_cache()):
            shutil.copyfile(jar, target / jar.name)
    except ChandleryError as error:
        raise ImageError(f"Kafka's jars: {error}") from error


def names_of(made: Sequence[MadeImage]) -> dict[str, str]:
    """Role → the image's name."""
    return {image.role: image.name for image in made}
