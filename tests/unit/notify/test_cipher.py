import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keeper.notify.channels import ChannelCipher, ChannelKeyWrong, fingerprint_of, load_or_create_key, make_key

URL = "mailto://bob:s3cret@example.org"


def test_decrypt_reverses_encrypt() -> None:
    cipher = ChannelCipher([make_key()])
    assert cipher.decrypt(cipher.encrypt(URL)) == URL


def test_token_shows_nothing_and_differs_each_time() -> None:
    cipher = ChannelCipher([make_key()])
    tokens = {cipher.encrypt(URL), cipher.encrypt(URL)}
    assert len(tokens) == 2
    assert not [token for token in tokens if "s3cret" in token]


def test_first_key_encrypts_and_any_key_decrypts() -> None:
    old, new = make_key(), make_key()
    both = ChannelCipher([new, old])
    assert both.decrypt(ChannelCipher([old]).encrypt(URL)) == URL
    assert ChannelCipher([new]).decrypt(both.encrypt(URL)) == URL


def test_rotate_moves_a_token_to_the_first_key() -> None:
    old, new = make_key(), make_key()
    token = ChannelCipher([new, old]).rotate(ChannelCipher([old]).encrypt(URL))
    assert ChannelCipher([new]).decrypt(token) == URL
    with pytest.raises(ChannelKeyWrong):
        ChannelCipher([old]).decrypt(token)


@pytest.mark.parametrize("use", [ChannelCipher.decrypt, ChannelCipher.rotate], ids=["decrypt", "rotate"])
def test_wrong_key_is_named_by_fingerprint_only(use: object) -> None:
    key, other = make_key(), make_key()
    cipher = ChannelCipher([other])
    with pytest.raises(ChannelKeyWrong) as wrong:
        use(cipher, ChannelCipher([key]).encrypt(URL))  # type: ignore[operator]
    assert cipher.fingerprint in str(wrong.value)
    assert other not in str(wrong.value)


@pytest.mark.parametrize("token", ["", "nonsense", "gAAAAA==", "é"])
def test_token_that_is_none_is_an_error_with_a_name(token: str) -> None:
    with pytest.raises(ChannelKeyWrong):
        ChannelCipher([make_key()]).decrypt(token)


@pytest.mark.parametrize("keys", [[], ["short"], [make_key(), "not a key, but a secret"]], ids=["none", "short", "second"])
def test_bad_key_is_refused_without_showing_it(keys: list[str]) -> None:
    with pytest.raises(ChannelKeyWrong) as wrong:
        ChannelCipher(keys)
    assert not [key for key in keys if key in str(wrong.value)]


def test_fingerprints_are_stable_and_tell_keys_apart() -> None:
    keys = [make_key(), make_key()]
    cipher = ChannelCipher(keys)
    assert cipher.fingerprints == tuple(fingerprint_of(key) for key in keys)
    assert cipher.fingerprint == fingerprint_of(keys[0]) != fingerprint_of(keys[1])


def test_repr_shows_fingerprints_only() -> None:
    key = make_key()
    assert key not in repr(ChannelCipher([key]))


def test_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "channel.key"
    key = load_or_create_key(path)
    assert load_or_create_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert ChannelCipher([key]).fingerprint


@pytest.mark.parametrize("content", [b"", b"half a k", b"\xff\xfe"])
def test_key_file_without_a_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "channel.key"
    path.write_bytes(content)
    with pytest.raises(ChannelKeyWrong, match=r"channel\.key"):
        load_or_create_key(path)
    assert path.read_bytes() == content


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "channel.key"
    program = """
import pathlib, sys
from keeper.notify.channels import load_or_create_key
input()
print(load_or_create_key(pathlib.Path(sys.argv[1])))
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate()[0].strip() for process in started}
    assert keys == {load_or_create_key(path)}
    assert [process.returncode for process in started] == [0, 0, 0, 0]


def test_loser_of_the_race_takes_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "channel.key"
    winner = make_key()

    def link_after_the_winner(source: Path, target: Path) -> None:
        target.write_text(winner)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link_after_the_winner)
    assert load_or_create_key(path) == winner
    assert list(tmp_path.iterdir()) == [path]
