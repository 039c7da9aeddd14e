#!/usr/bin/env node
// A second checker for recorded proofs, independent of the Python one.
//
// It was written from the page of meaning alone (the docstring that specifies terms, definitions,
// normal form, rules and records), without reading the other checker, so that a mistake in one is
// not a mistake in both. Where the page leaves a doubt, this checker takes the stricter reading.
//
//   node tools/replay.mjs FILE [FILE...]   one line a file; exit 0: all accepted, 1: some refused,
//                                          2: wrong usage or a file that cannot be read
//   node tools/replay.mjs --lines FILE     each line of FILE is a record of its own; prints
//                                          `accepted` or `refused<TAB>reason` for each
//
// Numbers: coefficients are fractions of BigInts; shifts and bounds are small exact integers.
import { readFileSync } from "node:fs";

const MAX_SHIFT = 100; // of every index, those that arise in a check included
const MAX_DEPTH = 100; // records within records
const MAX_MONOMIALS = 100_000; // of a subterm, a partial product, a normal form
const MAX_BOUND = 32; // variables that one monomial binds
const MAX_LEAVES = 100_000; // tries at naming the variables of one monomial

/** The only verdict but acceptance; any other exception counts as one, too. */
class Refusal extends Error {}
const refuse = (reason) => {
  throw new Refusal(reason);
};
const demand = (condition, reason) => condition || refuse(reason);

// ---------------------------------------------------------------- variables and indices
// A variable is the string "name|sort": two are the same if both are. Fresh ones begin with "$",
// which no recorded name does, and are never used twice.

let freshCount = 0;
const fresh = (like) => `$${(freshCount += 1)}|${sortOf(like)}`;
const nameOf = (v) => v.slice(0, v.indexOf("|"));
const sortOf = (v) => v.slice(v.indexOf("|") + 1);
const isTime = (v) => sortOf(v) === "time";
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const distinct = (list) => new Set(list).size === list.length;

function makeIx(vars, shift) {
  demand(Math.abs(shift) <= MAX_SHIFT, "the shift of an index is out of range");
  return { k: "Ix", vars: vars.length > 1 ? [...vars].sort(compare) : vars, shift };
}
const single = (v) => makeIx([v], 0);
const shifted = (ix, by) => makeIx(ix.vars, ix.shift + by);
/** A constant, or one time plus a constant: what may bound a range, or stand for a time. */
const isBound = (ix) => ix.vars.length === 0 || (ix.vars.length === 1 && isTime(ix.vars[0]));

// ---------------------------------------------------------------- reading records
// Kinds: a type or group of types; X* a list of X; X? an X or null; name, int, bool, slot.

const RECORDS = {
  Var: { name: "name", sort: "name" },
  Ix: { vars: "Var*", shift: "int" },
  Num: { top: "int", bottom: "int" },
  Atom: { name: "name", ix: "Ix*" },
  Lam: { binders: "Var*", body: "term" },
  App: { fn: "name", ix: "Ix*", args: "Lam*", slots: "slot*" },
  Add: { terms: "term*" },
  Mul: { factors: "term*" },
  Sum: { v: "Var", low: "Ix?", high: "Ix?", body: "term" },
  Prod: { low: "Ix", high: "Ix", factor: "Lam" },
  Equation: { every: "Var*", left: "term", right: "term" },
  Define: { name: "name", every: "Var*", term: "term", start: "term?" },
  DefineGradient: { name: "name", every: "Var*", param: "name", loss: "term", at: "Lam" },
  Sequent: { hypotheses: "Equation*", equation: "Equation" },
  Definition: { name: "name", entry: "Lam?", start: "bool" },
  Assume: { equation: "Equation" },
  Reflexivity: { every: "Var*", term: "term" },
  Calculate: { term: "term", peel: "Ix?" },
  Induction: { time: "Var", predicate: "Equation*", pick: "int" },
  Step: { rule: "rule", premises: "int*", conclusion: "Sequent" },
  Proof: { definitions: "definition**", steps: "Step*" },
};
const GROUPS = {
  term: ["Num", "Atom", "App", "Add", "Mul", "Sum", "Prod"],
  rule: ["Definition", "Assume", "Reflexivity", "Calculate", "Induction"],
  definition: ["Define", "DefineGradient"],
};
