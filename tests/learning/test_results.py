"""Results against numpy and scipy, and as they stand in ``metrics.json``."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from trajdesign.errors import InputError
from trajdesign.learning import bootstrap
from trajdesign.learning.results import KEYS, Comparison, Results, StageResult, to_json


def result(seed, n=12, **others):
    generator = np.random.default_rng(seed)
    lists = [generator.normal(30, 2, n).tolist() for _ in KEYS]
    return StageResult(n, [], *(float(np.mean(values)) for values in lists), *lists, **others)


def test_the_spread_is_that_of_a_sample():
    found = result(0)
    for key in KEYS:
        assert found.sd(key) == found.with_spread()[f"{key}_sd"] == pytest.approx(np.std(found.values(key), ddof=1))
    assert math.isnan(result(0, n=1).sd("psnr"))
    assert result(0, n=1).spread("psnr") == f"{result(0, n=1).psnr:.2f}"
    pair = StageResult(2, [], 30.0, 0.91234, 0.1, [30.0, 30.0], [0.91234 - 0.04, 0.91234 + 0.04], [0.1, 0.1])
    assert pair.spread("ssim") == "0.912 ± 0.057"


def test_the_comparison_is_paired():
    one, other = result(1), result(2)
    found = one.over(other)
    for key in KEYS:
        assert found.gain[key] == pytest.approx(np.mean(np.subtract(one.values(key), other.values(key))))
    for key in ("psnr", "ssim"):
        expected = scipy.stats.wilcoxon(one.values(key), other.values(key)).pvalue
        assert found.wilcoxon_p[key] == pytest.approx(expected)
    assert Comparison({"psnr": 1.234}, {"psnr": 0.0314}).text("psnr") == "+1.23 (3e-02)"
    nothing = {"psnr": 0.0, "ssim": 0.0}
    assert one.over(one) == Comparison(dict.fromkeys(KEYS, 0.0), {"psnr": 1.0, "ssim": 1.0}, nothing, nothing)
    with pytest.raises(InputError, match="cannot be paired"):
        one.over(result(2, n=11))


def test_the_interval_is_over_the_people_that_the_results_are_of():
    people = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    one, other = result(1, people=people), result(2, people=people)
    found = one.over(other)
    gains = [np.subtract(one.values(key), other.values(key)) for key in ("psnr", "ssim")]
    low, high = bootstrap.interval(gains, people)
    for end, expected in ((found.ci_low, low), (found.ci_high, high)):
        assert end == {"psnr": expected[0], "ssim": expected[1]}
    assert (found.n_people, found.resampled) == (3, "3 people and their images")
    assert found.interval("ssim") == f"{low[1]:+.3f} to {high[1]:+.3f}"
    assert one.over(result(2)) == found, "as an older run beside it does not tell"
    unknown = result(1).over(result(2))
    assert (unknown.n_people, unknown.resampled) == (None, "images, people unknown")
    assert result(1, n=1).over(result(2, n=1)).interval("psnr") == "-"
    alone = result(1, people=[4] * 12).over(result(2))
    assert (alone.n_people, alone.resampled) == (1, "images of 1 person")
    assert alone.ci_low == unknown.ci_low != found.ci_low


@pytest.mark.parametrize(
    ("gain", "p", "expected"),
    [((1, 1), (0.04, 0.04), True), ((1, -1), (0.04, 0.04), False), ((1, 1), (0.04, 0.06), False)],
)
def test_significant_is_better_in_both(gain, p, expected):
    keys = ("psnr", "ssim")
    comparison = Comparison(dict(zip(keys, gain, strict=True)), dict(zip(keys, p, strict=True)))
    assert comparison.is_significant is expected


STAGE = """{
    "n": 1, "left_out": [2], "psnr": 30.5, "ssim": 0.5, "nrmse": 0.25,
    "psnr_list": [30.5], "ssim_list": [0.5], "nrmse_list": [0.25],
    "fingerprints": [0.125, 0.25], "seconds": 1.5, "n_skipped": 0
}"""
WHOLE = f"""{{
    "name": "a", "fixed": {STAGE}, "learned": {STAGE}, "starts": [{{"val_psnr": 1.0, "seconds": 2.0}}],
    "wilcoxon_p": {{"psnr": 1.0, "ssim": 0.5}}, "limits": {{"ok": true, "margin": null}}, "files": {{"a.npz": "f0"}}
}}"""


def test_what_was_written_is_written_again_key_by_key():
    tables = json.loads(WHOLE)
    results = Results.from_tables(tables)
    assert to_json(results.tables()) == json.dumps(tables, indent=2)
    assert results.last is results.stages["learned"]
    over = results.over_fixed
    assert (over.gain, over.wilcoxon_p) == (dict.fromkeys(KEYS, 0.0), {"psnr": 1.0, "ssim": 0.5})
    assert np.isnan([*over.ci_low.values(), *over.ci_high.values()]).all(), "one image has no interval"
    del tables["fixed"], tables["starts"], tables["wilcoxon_p"]
    alone = Results.from_tables(tables)
    assert to_json(alone.tables()) == json.dumps(tables, indent=2)
    assert alone.over_fixed is None


def test_what_older_versions_did_not_write_stays_unknown():
    tables = json.loads(WHOLE)
    for key in ("left_out", "fingerprints", "n_skipped"):
        del tables["learned"][key]
    found = Results.from_tables(tables).last
    assert (found.left_out, found.fingerprints, found.n_skipped) == ([], None, None)
    assert "fingerprints" not in found.tables()


@pytest.mark.parametrize(("key", "wrong"), [("people", [0, 0]), ("ssim_list", []), ("psnr_list", [1.0, 2.0])])
def test_lists_of_different_numbers_of_images_are_not_paired(key, wrong):
    tables = json.loads(WHOLE)
    tables["learned"][key] = wrong
    with pytest.raises(InputError, match="different numbers of images"):
        _ = Results.from_tables(tables).over_fixed


def test_json_is_strict():
    assert to_json({"a": (math.nan, -math.inf, 0.1), 1: None}) == json.dumps(
        {"a": [None, None, 0.1], "1": None}, indent=2
    )
