"""The recipes of the images say the same: locks of roles, the distribution's extras, and the Dockerfile."""

from __future__ import annotations

import re
import ssl
import tarfile
import tomllib
from pathlib import Path

import pytest
from images import runtime
from images.archive import ImageSettings, write_image, write_layer
from images.roles import FOLDER, ROLES, ROOT, Role

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def _pins(file: Path) -> dict[str, str]:
    return dict(_PIN.findall(file.read_text(encoding="utf-8")))


def _normal(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None, requirement
    return found[0].lower().replace("_", "-")


@pytest.mark.skipif(not Path("/etc/ssl/certs/ca-certificates.crt").exists(), reason="this machine has no CAs itself")
def test_an_images_python_finds_the_cas_that_are_in_it(tmp_path: Path) -> None:
    runtime._put_base(tmp_path)
    looked_for = tmp_path / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
    target = looked_for.readlink() if looked_for.is_symlink() else looked_for
    assert "BEGIN CERTIFICATE" in (tmp_path / str(target).removeprefix(str(tmp_path)).lstrip("/")).read_text()


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_a_roles_packages_are_those_that_everything_is_tested_with(role: Role) -> None:
    tested = _pins(ROOT / "requirements.lock")
    assert _pins(role.lock_file).items() <= tested.items(), "run `make lock`"


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_a_role_has_what_its_extras_ask_for(role: Role) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in role.extras:
        wanted += project["optional-dependencies"][extra]
    assert {_normal(each) for each in wanted} <= _pins(role.lock_file).keys(), "run `make lock`"


def test_no_uvloop_is_in_the_operators_image() -> None:
    # With it the operator died while the API server restarted.
    assert "uvloop" not in _pins(ROLES["operator"].lock_file)


def test_the_dockerfile_has_a_stage_of_each_role_with_the_same_entrypoint() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    for role in ROLES.values():
        entrypoint = ", ".join(f'"{word}"' for word in role.entrypoint)
        stage = re.search(rf"^FROM base AS {role.name}\n((?:(?!FROM).*\n)*)", text, re.MULTILINE)
        assert stage is not None, role.name
        assert f"ENTRYPOINT [{entrypoint}]" in stage[1]
        assert f"COPY images/requirements/{role.name}.lock" in text


def test_the_same_content_makes_the_same_archive_whatever_its_times_owners_and_order(tmp_path: Path) -> None:
    archives = []
    for number, names in enumerate((("a", "b", "c"), ("c", "a", "b"))):
        source = tmp_path / f"source-{number}"
        source.mkdir()
        for name in names:
            (source / name).write_text(f"content of {name}", encoding="utf-8")
        (source / "a").chmod(0o600)
        layer = write_layer(tmp_path / f"layer-{number}", {source: "opt"})
        archive = tmp_path / f"image-{number}.tar"
        write_image(archive, "localhost/probe:1", [layer], ImageSettings(("/bin/true",)))
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]


def test_files_of_a_layer_are_readable_by_all_and_root_owns_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True, mode=0o700)
    (source / "folder" / "program").write_text("x", encoding="utf-8")
    (source / "folder" / "program").chmod(0o700)
    layer = write_layer(tmp_path / "layer", {source: ""})
    with tarfile.open(layer.file) as tar:
        modes = {member.name: member.mode for member in tar}
        assert {(member.uid, member.gid, member.mtime) for member in tar} == {(0, 0, 0)}
    assert modes == {"folder": 0o755, "folder/program": 0o755}
