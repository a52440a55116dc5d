"""The frame around the prompt."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.errors import InputError
from contextgen_core.methods.contextgen import prompt


@pytest.mark.parametrize("start", ["a photo of ", "An Image of ", " A PICTURE OF  "])
def test_one_leading_phrase_is_dropped(start: str) -> None:
    assert prompt.strip_leading(start + "two dogs") == "two dogs"
    assert prompt.strip_leading(start + "a photo of a dog") == "a photo of a dog"


@given(st.text(max_size=200))
def test_any_prompt_stands_in_the_template_as_it_is(text: str) -> None:
    made = prompt.wrap(text, 'say "{prompt}", then stop')
    assert made == f'say "{prompt.strip_leading(text)}", then stop'
    assert prompt.wrap(text, "  ") == text


def test_braces_and_format_codes_mean_nothing() -> None:
    assert prompt.wrap("{0} {prompt!r} %s", "[{prompt}]{x}") == "[{0} {prompt!r} %s]{x}"


def test_the_default_keeps_the_prompt_and_is_not_the_official_string() -> None:
    assert '"a red cat"' in prompt.wrap("a photo of a red cat")
    assert not prompt.is_official(prompt.DEFAULT_TEMPLATE)
    kinds = [prompt.describe(text) for text in (prompt.DEFAULT_TEMPLATE, "my {prompt}", "", " ")]
    assert kinds == ["pack default", "own", "none", "none"]


def test_the_official_string_is_told_by_its_hash_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {text: hashlib.sha256(f"draw {text} well".encode()).hexdigest() for text in ("", "A cat")}
    monkeypatch.setattr(prompt, "_OFFICIAL", digests)
    assert prompt.describe("draw {prompt} well") == "official"
    assert prompt.describe("draw {prompt}  well") == "own"


def test_bad_templates_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^the template has no \{prompt\}; put"):
        prompt.wrap("a cat", "draw it")
    with pytest.raises(InputError, match="the prompt has 20001 characters, the limit is 20000"):
        prompt.wrap("x" * 20001)
