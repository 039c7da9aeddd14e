"""The trusted checker: terms, their normal form, rules, replay. Standard library only.

Everything that the package calls proved was replayed here. Read in this order: `terms`,
`normal`, `definitions`, `proof`.
"""
