"""Who is let in to the pod's API, when the token stands in a file that changes."""

from __future__ import annotations

from pathlib import Path

from chandlery.workers.feed.token import Token


def test_a_token_in_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    token = Token(file=str(file))
    assert token.required
    assert token.admits("Bearer first")
    file.write_text("another\n")
    assert not token.admits("Bearer first")
    assert token.admits("Bearer another")


def test_without_a_readable_token_nobody_is_let_in(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = Token(file=str(file))
    assert not token.admits("Bearer ")
    file.write_text("")
    assert not token.admits("Bearer ")
    file.write_bytes(b"\xff\xfe")
    assert not token.admits("Bearer \xff\xfe")
    file.write_text("given")
    assert token.admits("Bearer given")
    file.unlink()
    assert not token.admits("Bearer given")


def test_where_no_token_is_set_everybody_is_let_in() -> None:
    assert Token().admits("")
    assert not Token("s").admits("")
    assert not Token("s").admits("s")
