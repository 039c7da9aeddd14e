"""One result a file, named for it; `derive()` returns the claim with its steps."""
