"""What somebody's own callable takes of a loop's inputs, and the call with just that."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from inspect import CO_VARARGS, CO_VARKEYWORDS, Parameter, Signature, ismethod, signature
from types import TracebackType
from typing import Any

from torch import nn

LEADING = ("q", "k", "v")
WORDS = {"q": "q", "query": "q", "queries": "q", "k": "k", "key": "k", "keys": "k"}
WORDS |= {"v": "v", "value": "v", "values": "v"}  # parameters that say which of them they are
PLACES = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
ANYTHING = signature(lambda *args, **kwargs: None)
FORMER = {"rate": "eta", "momentum": "alpha"}  # names of before, and of such a coefficient now
WRAPPED = ("_orig_mod", "module")  # of torch.compile; of DataParallel and its like
CALLS = ("__call__", "_wrapped_call_impl", "_call_impl")
UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
TOO_MANY = re.compile(r"takes (?:from \d+ to )?(\d+) positional arguments? but (\d+)")


def call(candidate: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """What the candidate returns for copies of those of the inputs that it takes.

    given: q, k, v and others, by name. Parameters of these names get them, in any order and of
    any kind, as do query, key and value, in the singular or plural; q, k and v also go to the first
    three positional ones, whatever these are called, unless some name says otherwise.
    `**kwargs` gets all that is left, by name; `*args` without it gets all that is left, in the
    order given, so that nothing takes another's place.
    What `functools.partial` has fixed stays. Parameters are read through it, `functools.wraps` and
    modules that wrap one (`torch.compile`, `nn.DataParallel`); where another wrapper passes on
    more than the callable inside takes, that is left out; by position, only what is empty at the
    end is. Raises `TypeError` for a required parameter of another name, for one named as rates and
    momenta were before, and where too few are taken by position.
    """
    read, fixed = parameters(candidate)
    for name in FORMER.keys() & read.parameters.keys() - given.keys():
        raise TypeError(
            "`candidate` must take `coefficients` for all numbers beside the weights; got a "
            f"parameter `{name}`. Use `coefficients[{FORMER[name]!r}]`, or as the loop names it."
        )
    offered = {name: x for name, x in given.items() if name not in fixed}
    while True:
        args, kwargs = arranged(read, deepcopy(offered))
        try:
            return invoke(candidate, *args, **kwargs)
        except TypeError as error:
            extra = refused(error, offered)
            if extra is None:
                raise
            del offered[extra]


def invoke(candidate: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """The call itself, in a frame that forwards as a wrapper does."""
    return candidate(*args, **kwargs)


def parameters(target: Callable[..., Any]) -> tuple[Signature, frozenset[str]]:
    """The parameters of what runs in the end, and the names that are fixed already."""
    if isinstance(target, partial):
        inner, fixed = parameters(target.func)

        def stub() -> None:
            """Stands for the callable inside."""

        stub.__signature__ = inner  # pyright: ignore[reportFunctionMemberAccess]
        left = signature(partial(stub, *target.args, **target.keywords)).parameters.values()
        kept = [p for p in left if p.name not in target.keywords]
        return Signature(kept), fixed | set(target.keywords)
    if isinstance(target, nn.Module):
        read, fixed = parameters(target.forward)
        inside = [getattr(target, name, None) for name in WRAPPED]
        found = next((m for m in inside if isinstance(m, nn.Module)), None)
        return parameters(found) if found is not None and takes_anything(read) else (read, fixed)
    if ismethod(target) and isinstance(target.__self__, nn.Module) and target.__name__ in CALLS:
        return parameters(target.__self__)
    try:
        return of_wrapped(target), frozenset()
    except (TypeError, ValueError):  # written in C, say
        return ANYTHING, frozenset()


def of_wrapped(target: Callable[..., Any]) -> Signature:
    """The parameters of what `functools.wraps` names, by keyword where a wrapper takes no places.

    Parameters of a kind that cannot be passed by keyword keep it.
    """
    wrappers, inside = [], target
    while (inner := getattr(inside, "__wrapped__", None)) is not None:
        wrappers.append(inside)
        inside = inner
    read = parameters(inside)[0] if isinstance(inside, nn.Module) else signature(target)
    for wrapper in wrappers:
        own = [p.kind for p in signature(wrapper, follow_wrapped=False).parameters.values()]
        if Parameter.VAR_POSITIONAL in own or Parameter.VAR_KEYWORD not in own:
            continue
        places = sum(kind in PLACES for kind in own)
        every = [p for p in read.parameters.values() if p.kind is not Parameter.VAR_POSITIONAL]
        late = {p.name for p in every[places:] if p.kind is Parameter.POSITIONAL_OR_KEYWORD}
        kept = [p.replace(kind=Parameter.KEYWORD_ONLY) if p.name in late else p for p in every]
        read = read.replace(parameters=sorted(kept, key=lambda p: p.kind))
    return read


def takes_anything(read: Signature) -> bool:
    """Whether no parameter has a name of its own."""
    kinds = {p.kind for p in read.parameters.values()}
    return bool(kinds) and kinds <= {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def arranged(read: Signature, offered: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, by position and by keyword."""
    every = read.parameters.values()
    named = [p for p in every if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    rest = next((p.name for p in every if p.kind is Parameter.VAR_POSITIONAL), None)
    others = next((p.name for p in every if p.kind is Parameter.VAR_KEYWORD), None)
    meaning = meanings(named, offered, every_place=rest is not None)
    unknown = [p.name for p in named if p.default is p.empty and p.name not in meaning]
    if unknown:
        raise TypeError(
            f"`candidate` must require no arguments but {', '.join(offered)}; got "
            f"{', '.join(map(repr, unknown))}. Give a default, or fix it by functools.partial."
        )
    bound = read.bind_partial()
    bound.arguments.update({name: offered[own] for name, own in meaning.items() if own in offered})
    left = {name: x for name, x in offered.items() if name not in meaning.values()}
    if rest:
        places = [n for n in left if n in LEADING or not others]
        bound.arguments[rest] = tuple(left.pop(name) for name in places)
    if others:
        bound.arguments[others] = left
    bound.apply_defaults()
    return bound.args, bound.kwargs


def meanings(
    named: list[Parameter], offered: Mapping[str, Any], *, every_place: bool
) -> dict[str, str]:
    """Which input each parameter gets: by its name, and the first three by place where none says.

    A word such as `query` says as much as `q`, unless another parameter says the same, or it is
    further behind and has a default.
    every_place: whether what is not named may follow by position.
    """
    meaning = {p.name: p.name for p in named if p.name in offered}
    first = [p.name for p in named if p.kind in PLACES][: len(LEADING)]
    telling = [p.name for p in named if p.default is p.empty or p.name in first]
    words = {name: WORDS[name.lower()] for name in telling if name.lower() in WORDS}
    for name, own in words.items():
        if name not in meaning and own in offered and [*words.values()].count(own) == 1:
            meaning[name] = own
    said = {own: name for name, own in meaning.items()}
    if (every_place or len(first) == len(LEADING)) and all(
        meaning.get(name, own) == own and said.get(own, name) == name
        for name, own in zip(first, LEADING, strict=False)
    ):
        meaning |= dict(zip(first, LEADING, strict=False))
    return meaning


def refused(error: TypeError, offered: Mapping[str, Any]) -> str | None:
    """Which input a wrapper passed on to a callable that does not take it; None if that is not it.

    A call with arguments that do not fit fails in the frame that calls, and only there; so an
    error inside of the candidate is not taken for this one.
    """
    frame = innermost(error.__traceback__)
    code = frame.tb_frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    variadic = bool(code.co_flags & CO_VARARGS)
    local = frame.tb_frame.f_locals
    if (found := UNEXPECTED.search(str(error))) and code.co_flags & CO_VARKEYWORDS:
        forwarded = local.get(code.co_varnames[count + variadic], {})
        name = found[1]
        return name if name in forwarded and name in offered else None
    if (found := TOO_MANY.search(str(error))) and variadic:
        forwarded = local.get(code.co_varnames[count], ())
        last = [*offered][-1]
        if len(forwarded) <= len(LEADING) or last in LEADING:
            return None
        if offered[last]:
            raise TypeError(
                f"`candidate` must take {', '.join(offered)} in this order behind *args; got a "
                f"callable there that takes {found[1]}. Pass by name or use functools.wraps."
            ) from error
        return last
    return None


def innermost(trace: TracebackType | None) -> TracebackType:
    """Where an error was raised."""
    if trace is None:
        raise ValueError("`trace` must be that of an error that was raised; got None. Raise it.")
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace
