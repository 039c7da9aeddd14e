"""The table of claims: each rests on derivations that can bear its verdict."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from derivations._claims import CLAIMS
from ttt_proofs.cli import claims_table
from ttt_proofs.cli.catalogue import RequestError, folder, names
from ttt_proofs.symbolic import Claim

WHERE = folder(None)


@pytest.fixture(scope="module")
def loaded():
    return claims_table.decided(WHERE, CLAIMS)


@pytest.fixture(scope="module")
def table(loaded):
    with pytest.MonkeyPatch.context() as here:  # the same derivations, not derived again
        here.setattr(claims_table, "decided", lambda where, found: loaded)
        return claims_table.rows(WHERE)


def test_every_derivation_decides_some_claim():
    assert {name for claim in CLAIMS for name in claim.by} == set(names(WHERE))


def test_verdicts_follow_from_what_holds_and_fails(loaded):
    for claim in CLAIMS:
        expects = [loaded[name].expects for name in claim.by]
        if claim.verdict == "refuted":
            assert "fails" in expects
            assert "holds" in expects, "what is true instead is shown as well"
        elif claim.verdict == "holds, corrected":
            assert "holds" in expects


@pytest.mark.parametrize(
    ("says", "verdict"),
    [
        ("Muon acts on each outer product", "refuted"),
        ("C_ti = η_i", "refuted"),
        ("With weight normalisation the state is the sum", "refuted"),
        ("Gradient ascent", "holds, corrected"),
        ("A static kernel", "holds, corrected"),
        ("O = Φ(Q) W_0", "holds, corrected"),
    ],
)
def test_known_verdicts(says, verdict):
    (claim,) = [c for c in CLAIMS if c.says.startswith(says)]
    assert claim.verdict == verdict


def test_each_failing_derivation_shows_its_numbers(table, loaded):
    failing = [
        row for row in table if any(loaded[n].expects == "fails" for n in row[4].split(", ") if n)
    ]
    assert len(failing) > 6
    for row in failing:
        assert re.search(r"the left side is -?[\d/]+ and the right side -?[\d/]+", row[5]), row[0]


def test_every_format_has_every_claim(table):
    text, html = claims_table.text(table), claims_table.html(table)
    for claim in CLAIMS:
        assert claim.says in text
    assert html.count("<tr>") == len(CLAIMS) + 1
    markdown = claims_table.markdown(table).splitlines()
    assert len(markdown) == len(CLAIMS) + 2
    assert all(line.count(" | ") == len(claims_table.COLUMNS) - 1 for line in markdown[2:])


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "proved"},
        {"by": ()},
        {"verdict": "not decided here"},
        {"verdict": "refuted", "so": ""},
    ],
)
def test_a_claim_that_says_too_little_is_refused(change):
    sound = Claim("x", "Section 1", "holds", "", ("momentum",))
    with pytest.raises(ValueError, match="must"):
        replace(sound, **change)


@pytest.mark.parametrize(
    ("verdict", "by"),
    [
        ("refuted", "momentum"),
        ("holds, corrected", "momentum_rates_agree"),
        ("holds", "bogus"),
    ],
)
def test_a_claim_must_rest_on_what_can_bear_it(verdict, by):
    with pytest.raises(RequestError):
        claims_table.decided(WHERE, (Claim("x", "Section 1", verdict, "so", (by,)),))


def test_a_directory_without_claims_is_told(tmp_path: Path):
    with pytest.raises(RequestError, match=r"no _claims\.py"):
        claims_table.claims(tmp_path)
    (tmp_path / "_claims.py").write_text("CLAIMS = ['a']")
    with pytest.raises(RequestError, match="tuple of Claim"):
        claims_table.claims(tmp_path)
