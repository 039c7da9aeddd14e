"""`python -m ttt_proofs` is `ttt-proofs`."""

from .cli import main

main()
