"""`python -m ttt_proofs` is `ttt-proofs`."""

from .cli import main

if __name__ == "__main__":
    main()
