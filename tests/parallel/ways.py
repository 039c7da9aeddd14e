"""The forms that the tests compare: small tiles, so that short sequences have several."""

from ttt_proofs.parallel import forms, maps
from ttt_proofs.parallel.forms import recurrent


def way(name: str, form: str, **options):
    """A form with options, under a name; the form is looked up when it runs."""

    def run(*args, module=forms, **more):
        return getattr(module, form)(*args, **(options | more))

    run.__name__ = name
    return run


masked = way("masked", "chunked", tile=10**6)  # one tile for all
tiled = way("tiled", "chunked", tile=6)  # two chunks of three
stepwise = way("stepwise", "chunked", tile=1)
scanned = way("scanned", "chunked", tile=2, along=maps.scanned)
composed = way("composed", "composed", tile=4)
CHUNKED = [masked, tiled, stepwise, scanned]
__all__ = ["CHUNKED", "composed", "masked", "recurrent", "scanned", "stepwise", "tiled"]
