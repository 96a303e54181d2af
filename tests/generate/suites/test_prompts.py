"""Suites of prompts: the shipped ones are whole, a user's own file is read or refused in a line."""

from collections import Counter

import pytest

from dfdbench.generate.suites import choose_suite, find_suites, get_suite, read_prompts
from dfdbench.utils.errors import UserError

ANIMATION = {"characters", "animals", "places", "food", "vehicles", "objects", "fantasy"}
MIXED = {"people", "nature", "animals", "drone", "macro", "slow-motion", "time-lapse"}


@pytest.mark.parametrize(
    ("name", "categories"), [("t2v-animation", ANIMATION), ("t2v-mixed", MIXED)]
)
def test_shipped_suites_have_ten_prompts_of_each_category(name, categories):
    suite = get_suite(name)
    assert len(suite.prompts) == 70 and suite.seeds == tuple(range(1, 9))
    assert Counter(p.attributes["category"] for p in suite.prompts) == dict.fromkeys(categories, 10)
    assert len({p.text for p in suite.prompts}) == 70
    assert all(4 <= len(p.text.split()) <= 40 for p in suite.prompts)


def test_no_prompt_is_in_two_suites():
    # The toy's captions come with a picture too, and long; a few long prompts at three lengths.
    like = {"toy-i2v": "toy-t2v", "ar-toy": "toy-t2v", "ar-30s": "ar-5s", "ar-60s": "ar-5s"}
    own = {suite.name: {p.text for p in suite.prompts} for suite in find_suites()[0]}
    for name, other in like.items():
        assert own.pop(name) == own[other]
    texts = Counter(text for prompts in own.values() for text in prompts)
    assert not {text for text, count in texts.items() if count > 1}


def test_ids_count_within_their_category(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("# mine\nfood | Soup boils\n\nA plain prompt\nfood | Bread rises\n")
    assert [(p.id, p.text) for p in read_prompts(file)] == [
        ("food-01", "Soup boils"),
        ("prompt-001", "A plain prompt"),
        ("food-02", "Bread rises"),
    ]
    suite = choose_suite("toy-t2v", file)
    assert suite.name == "mine" and len(suite.prompts) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no prompt"),
        ("# only a comment\n", "names no prompt"),
        ("A fox\nA fox\n", "mine.txt:2: the prompt of line 1 again"),
        ("food |\n", "mine.txt:1: write `category"),
        ("../x | A fox\n", "mine.txt:1: write `category"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, text, reason):
    file = tmp_path / "mine.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=reason):
        read_prompts(file)


def test_absent_files_and_names_of_suites_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        choose_suite("toy-t2v", tmp_path / "absent.txt")
    taken = tmp_path / "t2v-mixed.txt"
    taken.write_text("A fox\n")
    with pytest.raises(UserError, match="rename the file"):
        choose_suite("toy-t2v", taken)
