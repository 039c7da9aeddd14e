"""The trusted checker: what its language means, and why each rule is sound.

This page is complete. Whoever has it can write a second checker; `tools/replay.mjs` was written so.
The files are best read in the order `terms`, `normal`, `definitions`, `proof`. One
module that they use, `ttt_proofs.naming`, is not trusted: it proposes, and `normal` checks.
Python lets a program change any object in its own process; what counts is a record, replayed by a
process that runs nothing else.

# Terms

A **name** is a letter, then letters and digits 0-9, at most 100 in all; letters are A-Z, a-z, the
underscore, and U+0391 to U+03A9 and U+03B1 to U+03C9 (Greek). Names are sorted by code points. An
**integer** lies between -(2^53 - 1) and 2^53 - 1.
An **index variable** `Var(name, sort)` is a *time* if its sort is "time"; otherwise the sort is the
name of a *width*. Two variables are the same if both name and sort are. A list below is written
`[...]`; it may be empty unless said.

| term | fields | meaning |
|---|---|---|
| `Ix` | vars `[Var]`, shift integer | an index: the sum of `vars` plus `shift`, an integer. The variables come sorted by name, then sort; in a record the shift lies between -100 and 100 |
| `Num` | top, bottom integers | the fraction top/bottom; bottom >= 1 |
| `Atom` | name, ix `[Ix]` | the value of a symbol at its indices |
| `Lam` | binders `[Var]`, body term | an array given entry by entry; the binders have different names |
| `App` | fn name, ix `[Ix]`, args `[Lam]`, slots | a function `fn[ix]` of arrays, differentiated once for each slot; slots: `[(argument number, [Ix])]`, numbered from 0, with an index for each binder of the argument. `fn` is no symbol, though it may have the name of one |
| `Add` | terms `[term]` | their sum; 0 if there are none |
| `Mul` | factors `[term]` | their product; 1 if there are none |
| `Sum` | var Var, low, high Ix or null, body term | over a time: low and high are given and `var` is not free in them; the sum over low <= var <= high, 0 if high < low. Over a width: low and high are null; the sum over the width |
| `Prod` | low, high Ix, factor Lam | the product of `factor` over the times low..high, 1 if high < low; the factor binds just one variable, a time |

Each bound of a `Sum` over a time and of a `Prod` is a constant, or one time variable plus a
constant. `Sum` binds `var` in its body, `Lam` its binders in its body; all else is free. Names of
bound variables mean nothing.

# Meaning

A **model** gives each width a finite set {0, 1, ..., n - 1}, which may be *empty*; each symbol and
each number of indices a total function from integers to real numbers, so that a symbol has some
value also where an index is *out of range* (a negative time, an entry past its width); and each
function `fn`, for all integers `ix` and all shapes of its arguments, an infinitely differentiable
function of their entries. A binder over a width makes an array with one entry for each element, a
binder over a time an array with one entry for each integer. A slot is the partial derivative in the
named entry, 0 if the array has no such entry; slots apply from left to right, and no two orders are
taken to be one. No name of a function means anything: what is proved of `tanh` holds for any
function in its place.

A term then has a value once its free variables have: **free times are natural numbers, free widths
are elements of their width**. An `Equation(every [Var], left, right)` says that left = right for
all natural numbers and elements in place of `every` (variables of different names). If one of those
widths is empty it says nothing. A `Sequent(hypotheses [Equation], equation)` says: in every model
in which the definitions hold, and for all natural numbers in place of the times that are free in
the sequent, the equation holds if all hypotheses do. In a sequent **only times are free**: a width
may be empty, and then "for every element" would say nothing at all.

# Definitions

A proof opens with blocks of definitions. Each symbol is defined once, in one block; it occurs in no
block before, and a block may not define a symbol twice. The *leading times* of a list of variables
are those at its front, two at most: none, `t`, or `t, j`. Their number is the *level* of the
symbol.

* `Define(name, every, term, null)`: `name[every] = term`, for all `every`.
* `Define(name, every, term, start)` needs a level of at least 1. The last leading time r is the one
  that recurs: `name[.., r + 1, rest] = term` and `name[.., 0, rest] = start`; r is not free in
  `start`.
* `DefineGradient(name, every, param, loss, at)`: `name[every, entry]` is the derivative of `loss`
  in the entry `entry` of the symbol `param`, taken where `param` is, for all integers in place of
  its indices, what the formula `at` says. The parameter is a variable of this loss alone: it occurs
  neither in `at` nor in any other definition of the block, is defined nowhere in it, is the
  parameter of no other definition in it, even where no loss mentions it, and occurs in no block
  before, nor as a parameter there; no later block defines it or has it as a parameter.

In each definition the free variables of term, start, loss and `at` are among `every`. The names of
`every` differ from one another and from all names that are bound inside the definition (the binders
of `at` included).

A definition may use the symbols of its own block only where they are **due earlier**. Values are
due in the order (t, level, j, place), compared from the left; place is the definition's number in
its block, and j counts as 0 for a symbol of level 1. Seen from a definition with the leading times
t, j, an `Atom` whose symbol has level n is due where its first n indices say: the index `t + a` at
the first place counts as a, `j + b` at the second as b, any other or missing one as infinity. (So a
symbol of level 0, whose t counts as infinity, is never used in its own block.) This must be less
than what the definition's left side says in the same way: (0, n, 0, place), or with a start (1, 1,
0, place) for level 1, (0, 2, 1, place) for level 2. In the start itself at level 2 it must be less
than (0, 2, -infinity, place); at level 1 no index follows a time, so a start uses no symbol of its
block.

Why this is sound: natural numbers have no infinite descent, so any model of the other symbols, with
any values out of range, extends to the defined ones in exactly one way. Definitions contradict
nothing.

# Differentials

`d(term)` in the direction E, a new symbol, when the symbol `param` moves: the number 0 where
`param` does not occur in the term; otherwise an `Atom` of `param` becomes the `Atom` of E with the
same indices (whatever their number), a sum the sum of the differentials of its terms, a product the
sum, over its factors (those without `param` included), of the product with that factor replaced by
its differential, a `Sum` the sum of the differential; an `App` the sum, over its arguments k in
which `param` occurs and over that argument's binders e, of `App with the slot (k, e) appended`
times the differential of the argument's entry e. Where `param` occurs in a `Prod`, or in an argument that
binds a time, there is no differential: the checker refuses.

# Normal form

A calculation compares terms by normal form, in a *context*: constraints `u - v <= c` on times,
either of which may be absent. In a calculation they say that all free times are natural numbers.
With a *peel* `t + c` (one time variable plus a constant) ranges that reach it are cut there.

1. *Multiply out* into monomials `coefficient * Sum over bound variables, within limits, of a product of
   factors`, factors being `Atom`, `App`, `Prod`. Each `Sum` binds a new variable; over a time its
   bounds become limits.
2. *Settle* each monomial; do the first of these that applies, until none does:
   a. If no integers satisfy context and limits, it is 0.
   b. If these force a bound time to equal a constant, or another variable plus a constant, put that in:
      a constant if there is one, else the first by name of the variables that are free in the whole term,
      else another one.
   c. If the largest constant that they force to be <= a bound time v is not 0, write v = w + that
      constant, w new and bound in place of v.
   d. If the tightest bound that they force on a bound time v in terms of the peel's variable is
      `v <= t + a` with a >= c, split: `v <= t + a - 1`, and `v = t + a`. Of several bound times to
      which b, c or d applies, any may be taken first; the weight below may depend on it a little.
   e. A `Prod` that they force to be empty (high < low) is 1. Where they force low <= high, and high and
      low have the same variables, or high has the peel's variable and a shift of at least c, the last
      factor is taken out: `Prod(low, high) = Prod(low, high - 1) * factor at high`, multiplied out again.
3. *Arguments* of `App` and `Prod` are normal forms themselves, in the context of all that is known there
   (context and limits, what they imply included, but for the monomial's bound variables that do not
   occur in the factor, taken as it was before), with the same peel; their binders carry no constraint.
4. *Collect*: monomials that differ only by a one-to-one renaming of bound variables that keeps sorts are
   one; coefficients add up, and 0 vanishes. Limits are compared by what they imply: all `u - v <= c` that
   follow from context and limits, c least, for pairs that involve a bound variable, and for other pairs
   if c is less than the context alone gives; left out are those between two variables that follow from
   constants, `u <= a` and `b <= v` with a - b <= c. The factors are compared as a bag, with arguments as
   they are after 3 (a variable that has vanished there does not occur), and the variables of an `Ix` as
   well. Binders of a `Lam` are compared by position, and have the same sorts.

Why it is sound: each step keeps the value for every size of the widths and all times that the
context allows. Terms with one normal form are equal; the converse is not claimed. Checkers may
differ in one case: where the limits inside an argument force two variables that are bound outside
of it to be equal, equal terms may be taken to differ.

# Rules

Each step of a proof names a rule, earlier steps as premises (by number, from 0; none but for
*Calculate* and *Induction*), and its conclusion. Wherever a substitution would capture a variable,
bound ones are renamed first. What the rule concludes must satisfy the following **before** it is
compared with what is recorded: the names in `every` differ (in the hypotheses as well), no variable
of `every` is free in a hypothesis (the equation would then speak of another variable than the
hypothesis, by the same name), and only times are free in it, hypotheses included. What is recorded
must be just that up to a renaming of bound variables (those of `every` among them, by position),
and must satisfy the same. Later steps use what is recorded.

**Definition** (name, entry, start). No hypotheses, and the defining equation. A `Define` takes no
entry, and start says which equation: `name[every] = term`, or with a start `name[.., r + 1, rest] =
term`, all of `every` quantified; or `name[.., 0, rest] = start`, with r left out. A
`DefineGradient` takes no start, and as entry an array `binders |-> body` with binders of the sorts
of those of `at`, none a time; without an entry it is `[] |-> loss`. It is checked that d(loss) in a
new direction E, and `Sum over the binders of body * E[binders]`, have one normal form; then
`name[every, binders] = body with param replaced by at`, for all `every, binders`. (An `Atom` of
`param` in the body must have as many indices as `at` has binders.) *Sound*: definitions hold in the
models that sequents speak of; an array G with d(loss) = Sum G * E in every direction E is the
derivative, and an empty width makes both sides 0.

**Assume** (equation). The equation under itself. *Sound*: it says "if it holds, it holds".

**Reflexivity** (every, term). No hypotheses; `term = term` for all `every`. *Sound*: equality is
reflexive.

**Calculate** (term, peel) from a target and sources. The conclusion is the target with `term` as
its right side, under the hypotheses of target and sources, each once, in order of appearance. Each
source in turn is used on the target's right side and on `term`: every `Atom` that is an instance of
the source's left side is replaced by that instance of its right side (all at once; what is put in
is not searched again). The context, all free times of both as natural numbers, is fixed before that
source is used. The normal forms in the context of the free times of all three, with the peel, of
the target's side and `term`, or of the target's side and the `term` that the sources were used on,
must agree; they are compared in this order, and what exceeds a limit is refused. An instance gives
to each quantified time an index that is a constant or one time plus a constant, and that context
and enclosing sums over times (low <= var <= high) force to be >= 0; to each quantified width an
index of that width, one variable without shift; and makes the left side equal to the given `Atom`,
which is never so for a left side of another kind, each quantified variable standing alone, or with
a shift, at some index of it. (A bound variable is not a free one of the source, though it may have
its name.) *Sound*: a source holds for all values of `every`, and under the shared hypotheses for
its free times, which it has in common with the target; an instance with an empty width would need
an element of it, and there is none.

**Induction** (time, predicate, pick). The predicate is a list P of equations in which `time` may be
free, and is not quantified. The premises are P at time = 0, each equation in order, then P at time
+ 1. Concludes the equation number `pick` for all (time, every), under the premises' hypotheses
without, in the second half, those that are equations of P, name for name; `time` is free in none
that is left. (Hypotheses are one only if they agree name for name.) *Sound*: induction on natural
numbers; all of P together is the induction hypothesis.

The last conclusion is what is proved. It is a **theorem** if it has no hypotheses. It speaks of the
symbols that it names, through the definitions that they rest on: read those as well.

# Limits on work

So that every checker agrees on what is too much, and refuses it: a record nests at most 100 of its
records deep (the `Proof` is the first, lists are not counted). Each variable, index, term and so on
that is a list with its type first counts as a record. A list of variables has at most 100.

**A normal form** weighs at most 300 000, counted so. A monomial weighs one, and one more for each
factor and for each binary digit of its coefficient, in lowest terms, above and below the line (the
number 0 has no digit). Multiplying out weighs what the monomials of each `Add` weigh together,
those of each `Sum`, and in each `Mul` those of the product of its first n factors, for each n from
one to all. Where rule e takes out a last factor, the product of the shorter `Prod` and that factor
is multiplied out so, and what the rest of the monomial gives times each monomial of this counts
besides; an empty product is one such monomial, without factors. No monomial has more than 12 bound
variables, then or when settled.

Each monomial that settling looks at, to find that it is 0, to change it, or to leave it settled,
weighs one, the square of the number of times that context and limits speak of, and one for each record
in its factors. A settled one weighs besides one for each record in its factors, taken before their
arguments become normal forms, one for each digit as above, also with the coefficient 0, one for each
pair of a limit that is compared and a bound variable, of any sort, and what its arguments weigh, each
time that it has them. This additional weight is multiplied by one plus the number of ordered pairs of
different variables of one sort that the monomial binds, since they have to be told apart.

Context and limits together speak of at most 100 times. So do the context of a calculation, or of a
gradient (the free times of d(loss) and of the pairing), whatever the terms, and context and
enclosing sums over times, wherever a source is used, whether or not it has an instance there (a sum
that no integers allow counts, what is inside it does not).

**A calculation** has at most 100 sources. To use one weighs the records of the two sides; those of the
source's right side, once for each `Atom` of the two sides whose symbol occurs in the source's left side;
and for each record of the sides that binds variables, the square of how many times are free in the
sides or bound by the sums over times that stand around it, itself included, one for each sum. Together
this is at most 300 000 for all sources of a calculation, and it is counted before each is used. For each of
these Atoms, the number of the side's records that stand around it and the depth of the right side add up
to at most 100 (a term is as deep as its records nest, itself being the first). The same holds of the body
of a gradient's entry, where the body of `at` is put in place of each Atom of the parameter, with a weight
of at most 100 000. The records of each `Mul` in a loss, times the number of its factors, and those of each
`App`, times the number of its arguments, are at most 100 000 together.

# Records

A record is JSON. A node is a list `[its type, its fields in the order of the tables]`, a list is a
list, an absent field is null. A slot is `[integer, [Ix]]`.

    Var(name, sort)                     Equation(every, left, right)
    Ix(vars, shift)                     Define(name, every, term, start or null)
    Num(top, bottom)                    DefineGradient(name, every, param, loss, at)
    Atom(name, ix)                      Sequent(hypotheses, equation)
    Lam(binders, body)                  Definition(name, entry or null, start true or false)
    App(fn, ix, args, slots)            Assume(equation)
    Add(terms)                          Reflexivity(every, term)
    Mul(factors)                        Calculate(term, peel or null)
    Sum(var, low, high, body)           Induction(time, predicate, pick)
    Prod(low, high, factor)             Step(rule, premises, conclusion)
                                        Proof(definitions, steps)

`Proof.definitions` is a list of blocks, a block a list of `Define` and `DefineGradient`. A proof
has at least one step. Anything else in a record (another type, a missing field, `true` or `1.0` for
1) is refused.

A *file* is JSON by RFC 8259 (so `NaN` is refused); of a key given twice the last counts, though a
checker may refuse the file, as it may refuse one of more than ten million characters. A file holds
one `Proof`, or an object with the key "parts", a list of at least one object, each of which has the
keys "proof", a `Proof`, and "statement", an `Equation` or null. The first object may also have
"schema", the integer 1, and "name" and "expects", any strings; a part may have "label", any string;
they mean nothing. Other keys are refused. A file is accepted if each proof is accepted, and where
the statement is not null, the proof's last conclusion has no hypotheses and is that equation, name
for name. (With null, the conclusion may be anything, hypotheses included.)
"""
