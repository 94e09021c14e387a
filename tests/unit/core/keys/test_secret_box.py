from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import HotplugError, TooLarge
from chalicelib.core.keys import secret_box
from chalicelib.core.keys.secret_box import SecretBox

AAD = ("plugin_x_1", "17", "/apiKey")
KEY = b"k" * 32
BOX = SecretBox(7, {1: KEY})


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=4).map(tuple))
def test_what_was_encrypted_comes_back(plaintext: str, aad: tuple[str, ...]) -> None:
    token = BOX.encrypt(plaintext, aad)
    assert BOX.decrypt(token, aad) == plaintext
    assert token.startswith("v1.1.") and token.isascii()


def test_the_same_secret_twice_gives_two_tokens() -> None:
    assert BOX.encrypt("hunter2", AAD) != BOX.encrypt("hunter2", AAD)


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("plugin_y_2", "17", "/apiKey"),
        ("plugin_x_1", "18", "/apiKey"),
        ("plugin_x_1", "17", "/shown"),
        ("plugin_x_1", "17/apiKey"),
        ("plugin_x_11", "7", "/apiKey"),
        ("plugin_x_1", "17", "/apiKey", ""),
    ],
)
def test_a_token_opens_only_in_its_place(place: tuple[str, ...]) -> None:
    with pytest.raises(HotplugError) as refused:
        BOX.decrypt(BOX.encrypt("hunter2", AAD), place)
    assert refused.value.code == "secrets.cannot_decrypt"


def test_another_apps_box_opens_nothing_even_with_the_same_key() -> None:
    with pytest.raises(HotplugError):
        SecretBox(8, {1: KEY}).decrypt(BOX.encrypt("hunter2", AAD), AAD)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "v1",
        "v1.1",
        "v1.1.",
        "v1.1.AAAA",
        "v1.1.!!!!",
        "v1.x.AAAA",
        "v1.01.AAAA",
        "v1.².AAAA",
        "v2.1.AAAA",
        "***",
    ],
)
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(HotplugError) as refused:
        BOX.decrypt(token, AAD)
    assert refused.value.code == "secrets.cannot_decrypt"


def test_every_changed_character_is_noticed() -> None:
    token = BOX.encrypt("hunter2", AAD)
    box = SecretBox(7, {1: KEY, 2: KEY, 11: KEY})
    for at in range(len(token)):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(HotplugError):
            box.decrypt(changed, AAD)
    # The version is bound as well, although all three versions have the same key here.
    with pytest.raises(HotplugError):
        box.decrypt(token.replace("v1.1.", "v1.2.", 1), AAD)


def test_a_secret_has_a_limit() -> None:
    at_the_limit = "ä" * (secret_box.MAX_PLAINTEXT_BYTES // 2)
    assert BOX.decrypt(BOX.encrypt(at_the_limit, AAD), AAD) == at_the_limit
    with pytest.raises(TooLarge):
        BOX.encrypt(at_the_limit + "a", AAD)


def test_the_newest_key_encrypts_and_every_key_decrypts() -> None:
    old = BOX.encrypt("old", AAD)
    box = SecretBox(7, {1: KEY, 2: b"n" * 32})
    new = box.encrypt("new", AAD)
    assert new.startswith("v1.2.")
    assert (box.decrypt(old, AAD), box.decrypt(new, AAD)) == ("old", "new")
    with pytest.raises(HotplugError):
        BOX.decrypt(new, AAD)
