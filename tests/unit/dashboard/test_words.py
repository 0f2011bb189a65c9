"""Both languages say everything, and nothing is said that is not in the table."""

import re
from pathlib import Path

import pytest

from dashboard.words import NAMES, WORDS, Words, language_of
from keeper.domain.arbitrage import PartName
from keeper.domain.opportunity_score import Flag

SOURCES = [file.read_text() for file in (Path(__file__).parents[3] / "dashboard").rglob("*.py") if file.name != "words.py"]
_BRACES = re.compile(r"\{(\w+)\}")


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_say_it_with_the_same_gaps(key: str) -> None:
    german, english = WORDS[key]

    assert german and english
    assert set(_BRACES.findall(german)) == set(_BRACES.findall(english))


def test_every_word_is_said_somewhere_and_every_word_said_is_known() -> None:
    said = {key for source in SOURCES for key in re.findall(r"""["']([a-z][a-z_0-9]*)["']""", source)}
    asked = {key for source in SOURCES for key in re.findall(r"""\b(?:words|say)\(\s*["']([a-z_0-9]+)["']""", source)}

    assert asked - WORDS.keys() == set()
    assert WORDS.keys() - said == set()


def test_parts_of_a_profit_and_flags_have_words() -> None:
    assert {*map(str, PartName), *map(str, Flag)} - NAMES.keys() == set()


def test_name_nobody_knows_is_shown_as_it_is() -> None:
    assert Words("de").name("no EAN in common; 2 and 3 pieces") == "no EAN in common; 2 and 3 pieces"


@pytest.mark.parametrize(
    ("locale", "language"), [("de-DE", "de"), ("de", "de"), ("en-GB", "en"), ("fr-FR", "en"), ("", "en"), (None, "en")]
)
def test_language_is_that_of_the_browser(locale: str | None, language: str) -> None:
    assert language_of(locale) == language
