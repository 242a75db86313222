"""The study of codes and phones, on cases made by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from support.phones import code_phone_study, mutual_information, phones_of_codes


def codes(*rows: str) -> list[np.ndarray]:
    return [np.array([int(c) for c in row], "int32") for row in rows]


def phones(*rows: str) -> list[np.ndarray]:
    return [np.array(list(row)) for row in rows]


def test_a_code_has_the_phone_at_its_middle() -> None:
    segments = [(0.010, "pau"), (0.025, "a"), (0.040, "t")]
    # Codes of 8 ms: their middles are at 4, 12, 20, 28, 36 and 44 ms, the last after the end.
    found = phones_of_codes(segments, 6, samples_per_code=64, sample_rate=8000)
    assert found.tolist() == ["pau", "a", "a", "t", "t", "t"]


def test_accuracy_is_of_the_other_half() -> None:
    # The first and the third clip say 0 -> a (3 of 4), 1 -> b, and for code 2, which they do not
    # meet, b (5 of 8).
    study = code_phone_study(
        codes("0011", "0012", "0011", "21"), phones("aabb", "aaba", "abbb", "bb")
    )
    # So the second clip's a a b a are told as a a b b, the fourth's b b rightly.
    assert study["accuracy"] == pytest.approx(5 / 6)
    assert study["baseline"] == pytest.approx(3 / 6)
    assert study["positions"] == 14


def test_a_code_not_met_is_the_most_frequent_phone() -> None:
    study = code_phone_study(codes("001", "77"), phones("aab", "ab"))
    assert study["accuracy"] == 0.5 and study["baseline"] == 0.5 and study["ratio"] == 1


def test_baseline() -> None:
    study = code_phone_study(codes("012", "012"), phones("aab", "cca"))
    assert study["baseline"] == pytest.approx(1 / 3)
    assert study["accuracy"] == 0 and study["ratio"] == 0


def test_mutual_information_of_knowing_all_and_nothing() -> None:
    study = code_phone_study(codes("0123", "3210"), phones("abcd", "dcba"))
    assert study["accuracy"] == 1 and study["baseline"] == 0.25 and study["ratio"] == 4
    assert study["mutual_information"] == pytest.approx(2) == study["phone_entropy"]
    # Miller and Madow: (3 + 3 - 3) / (2 · 8 · ln 2).
    assert study["corrected"] == pytest.approx(2 + 3 / (16 * np.log(2)))
    nothing = code_phone_study(codes("0101", "0101"), phones("aabb", "aabb"))
    assert nothing["mutual_information"] == pytest.approx(0, abs=1e-12)
    assert nothing["corrected"] == pytest.approx((1 + 1 - 3) / (16 * np.log(2)))


def test_the_correction_takes_chance_away() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        table = np.zeros((20, 10), int)
        np.add.at(table, (rng.integers(20, size=2000), rng.integers(10, size=2000)), 1)
        found.append(mutual_information(table))
    plug_in, corrected = np.mean(found, axis=0)
    assert plug_in > 0.05 and abs(corrected) < 0.005


def test_silence_can_be_left_out() -> None:
    study = code_phone_study(codes("0055", "5501"), phones("ab__", "__ab"), leave_out=["_"])
    alone = code_phone_study(codes("00", "01"), phones("ab", "ab"))
    assert study == alone and study["positions"] == 4


def test_bad_clips() -> None:
    with pytest.raises(ValueError, match="at least two clips"):
        code_phone_study(codes("01"), phones("ab"))
    with pytest.raises(ValueError, match="as many codes as phones"):
        code_phone_study(codes("01", "01"), phones("ab", "abc"))
    with pytest.raises(ValueError, match="no positions that count"):
        code_phone_study(codes("01", "01"), phones("ab", "__"), leave_out=["_"])


def test_the_ratio_to_a_baseline_of_nothing_is_none() -> None:
    codes = [np.array([0, 0]), np.array([1, 1])]
    phones_of = [np.array(["a", "a"]), np.array(["b", "b"])]
    assert code_phone_study(codes, phones_of)["ratio"] is None
