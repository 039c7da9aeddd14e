"""Exact arithmetic without FLINT, torch and NumPy says what it says with them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Refuses to import these, then decides some derivations and prints what was found.
SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import json
from ttt_proofs.checker.proof import Theorem
from ttt_proofs.cli.catalogue import folder, load
from ttt_proofs.evidence.exact import exact_witness, refute
from ttt_proofs.reduction import reduce
from ttt_proofs.symbolic.records import digest

found = {}
for name in sys.argv[2:]:
    derivation = load(folder(None), name)
    for part in derivation.parts:
        seen = exact_witness(part.statement, part.proof.definitions, seed=0)
        told = [seen.agrees, seen.error_bound_log2, list(map(str, seen.primes))]
        if derivation.expects == "fails":
            told.append(str(refute(part.statement, part.proof.definitions, seed=0)))
        else:
            told.append(digest(Theorem(part.proof).proof))
        found[f"{name} {part.label}"] = told
    found[name] = [str(reduce(loop)) for loop in derivation.loops[:1]]
print(json.dumps(found))
"""
NAMES = ("momentum", "momentum_rates_agree", "weight_norm_is_plain_sum", "vittt_glu")


def run(blocked: str) -> dict:
    """What the script prints, with these packages blocked."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, blocked, *NAMES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_everything_up_to_reduce_needs_neither_torch_nor_numpy_nor_flint():
    """Proofs, digests, exact evidence with its bounds, counterexamples and reductions."""
    assert run("torch,numpy,flint,triton") == run("nothing")


@pytest.mark.parametrize("package", ["sympy"])
def test_a_package_that_is_needed_is_missed(package):
    with pytest.raises(AssertionError, match="is blocked"):
        run(package)
