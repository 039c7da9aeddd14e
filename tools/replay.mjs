#!/usr/bin/env node
// A second checker for recorded proofs, independent of the Python one.
// It was written from the page of meaning alone, without reading the other checker, so that a mistake
// in one is not a mistake in both. Where the page leaves a doubt, it takes the stricter reading.
//
//   node tools/replay.mjs FILE [FILE...]   one line a file; exit 0: all accepted, 1: some refused,
//                                          2: wrong usage or a file that cannot be read
//   node tools/replay.mjs --lines FILE     each line of FILE is a record of its own; prints
//                                          `accepted` or `refused<TAB>reason` for each
import { readFileSync } from "node:fs";

const MAX_SHIFT = 100; // of an index in a record
const MAX_DEPTH = 100; // records within records
const MAX_MONOMIALS = 100_000; // of a subterm, a partial product, a normal form
const MAX_BOUND = 32; // variables that one monomial binds
const MAX_TIMES = 100; // that context and limits speak of
const MAX_RECORDS = 100_000; // in the two sides of a calculation
const MAX_LEAVES = 100_000; // tries at naming the variables of one monomial

/** The only verdict but acceptance; any other exception counts as one, too. */
class Refusal extends Error {}
const refuse = (reason) => { throw new Refusal(reason); };
const demand = (condition, reason) => condition || refuse(reason);
/** A sum of two integers, which must be one that is exact. */
const exact = (total) => demand(Number.isSafeInteger(total), "an integer is out of range") && total;

// ---------------------------------------------------------------- variables and indices
// A variable is the text "name sort"; such texts sort by name, then sort. Fresh ones begin with "$",
// which no recorded name does, and are never made twice.
let freshCount = 0;
const fresh = (like) => `$${(freshCount += 1)} ${sortOf(like)}`;
const isFresh = (v) => v.startsWith("$");
const nameOf = (v) => v.slice(0, v.indexOf(" "));
const sortOf = (v) => v.slice(v.indexOf(" ") + 1);
const isTime = (v) => sortOf(v) === "time";
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const distinct = (list) => new Set(list).size === list.length;
const total = (list) => list.reduce((a, b) => a + b, 0);

const makeIx = (vars, shift) => ({ k: "Ix", vars: [...vars].sort(compare), shift: exact(shift) });
const single = (v) => makeIx([v], 0);
const shifted = (ix, by) => makeIx(ix.vars, ix.shift + by);
/** A constant, or one time plus a constant: what may bound a range, or stand for a time. */
const isBound = (ix) => ix.vars.length === 0 || (ix.vars.length === 1 && isTime(ix.vars[0]));

// ---------------------------------------------------------------- reading records
// Kinds: a type or group of types; X* a list of X; X? an X or null; name, int, bool, slot.
const RECORDS = {
  Var: { name: "name", sort: "name" }, Ix: { vars: "Var*", shift: "int" }, Num: { top: "int", bottom: "int" },
  Atom: { name: "name", ix: "Ix*" }, Lam: { binders: "Var*", body: "term" },
  App: { fn: "name", ix: "Ix*", args: "Lam*", slots: "slot*" }, Add: { terms: "term*" },
  Mul: { factors: "term*" }, Sum: { v: "Var", low: "Ix?", high: "Ix?", body: "term" },
  Prod: { low: "Ix", high: "Ix", factor: "Lam" }, Equation: { every: "Var*", left: "term", right: "term" },
  Define: { name: "name", every: "Var*", term: "term", start: "term?" },
  DefineGradient: { name: "name", every: "Var*", param: "name", loss: "term", at: "Lam" },
  Sequent: { hypotheses: "Equation*", equation: "Equation" },
  Definition: { name: "name", entry: "Lam?", start: "bool" }, Assume: { equation: "Equation" },
  Reflexivity: { every: "Var*", term: "term" }, Calculate: { term: "term", peel: "Ix?" },
  Induction: { time: "Var", predicate: "Equation*", pick: "int" },
  Step: { rule: "rule", premises: "int*", conclusion: "Sequent" },
  Proof: { definitions: "definition**", steps: "Step*" },
};
const GROUPS = {
  term: ["Num", "Atom", "App", "Add", "Mul", "Sum", "Prod"],
  rule: ["Definition", "Assume", "Reflexivity", "Calculate", "Induction"],
  definition: ["Define", "DefineGradient"],
};
const NAME = /^[A-Za-z_\u0391-\u03A9\u03B1-\u03C9][A-Za-z0-9_\u0391-\u03A9\u03B1-\u03C9]*$/;

/** What a record of each type must satisfy by itself. */
const CONDITIONS = {
  Ix(r) {
    demand(r.vars.every((v, n) => !n || r.vars[n - 1] <= v), "unsorted variables of an index");
    demand(Math.abs(r.shift) <= MAX_SHIFT, "the shift of an index is out of range");
  },
  Num: (r) => demand(r.bottom >= 1, "a fraction with a bottom below 1"),
  Lam: (r) => demand(distinct(r.binders.map(nameOf)), "two binders of one name"),
  App(r) {
    const fits = ([n, ix]) => n >= 0 && n < r.args.length && ix.length === r.args[n].binders.length;
    demand(r.slots.every(fits), "a slot that fits no argument");
  },
  Sum(r) {
    if (!isTime(r.v)) return demand(r.low === null && r.high === null, "a width with bounds");
    demand(r.low && r.high && isBound(r.low) && isBound(r.high), "bad bounds of a sum over a time");
    demand(![...r.low.vars, ...r.high.vars].includes(r.v), "a sum whose bounds have its variable");
  },
  Prod(r) {
    demand(isBound(r.low) && isBound(r.high), "bad bounds of a product");
    demand(r.factor.binders.length === 1 && isTime(r.factor.binders[0]), "a product not over a time");
  },
  Equation: (r) => demand(distinct(r.every.map(nameOf)), "two quantified variables of one name"),
  Calculate: (r) => demand(!r.peel || (r.peel.vars.length && isBound(r.peel)), "a bad peel"),
  Induction: (r) => demand(isTime(r.time), "induction on a width"),
  Proof: (r) => demand(r.steps.length > 0, "a proof without steps"),
};

/** A JSON value as a record of the given kind; depth counts the records around it. */
function read(kind, json, depth) {
  if (kind.endsWith("?")) return json === null ? null : read(kind.slice(0, -1), json, depth);
  const list = kind.endsWith("*");
  if (list) return demand(Array.isArray(json), "no list") && json.map((item) => read(kind.slice(0, -1), item, depth));
  if (kind === "name") return demand(typeof json === "string" && NAME.test(json), "a bad name") && json;
  if (kind === "bool") return demand(typeof json === "boolean", "a bad truth value") && json;
  if (kind === "int") return demand(Number.isSafeInteger(json), "a bad integer") && json + 0;
  demand(Array.isArray(json) && (kind !== "slot" || json.length === 2), "no record where one belongs");
  if (kind === "slot") return [read("int", json[0], depth), read("Ix*", json[1], depth)];
  return readRecord(GROUPS[kind] ?? [kind], json, depth + 1);
}

function readRecord(types, json, depth) {
  const [type, ...values] = json;
  demand(typeof type === "string" && types.includes(type), `no ${types.join(" or ")} where one belongs`);
  demand(depth <= MAX_DEPTH, "records nest too deep");
  const fields = Object.entries(RECORDS[type]);
  demand(values.length === fields.length, `a ${type} with a wrong number of fields`);
  if (type === "Var") return `${read("name", values[0])} ${read("name", values[1])}`;
  const record = { k: type };
  fields.forEach(([field, kind], n) => (record[field] = read(kind, values[n], depth)));
  CONDITIONS[type]?.(record);
  return record;
}

/** JSON in which a number not written as an integer becomes an object, which no field accepts. */
function parse(text) {
  JSON.parse(text); // first of all it must be JSON
  const token = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  return JSON.parse(text.replace(token, (s) => (s[0] !== '"' && /[.eE]/.test(s) ? "{}" : s)));
}

// ---------------------------------------------------------------- terms: variables, substitution
const num = (top) => ({ k: "Num", top, bottom: 1 });
const add = (terms) => ({ k: "Add", terms });
const mul = (...factors) => ({ k: "Mul", factors });
const atom = (name, ix) => ({ k: "Atom", name, ix });
const app = (fn, ix, args, slots) => ({ k: "App", fn, ix, args, slots });
const lam = (binders, body) => ({ k: "Lam", binders, body });
const sum = (v, low, high, body) => ({ k: "Sum", v, low, high, body });
const prod = (low, high, factor) => ({ k: "Prod", low, high, factor });
const equation = (every, left, right) => ({ k: "Equation", every, left, right });

/** What a term, array or equation is made of: a label, indices, binders, and parts within the
 * binders; and how to make the same of other indices, binders and parts. */
function anatomy(t) {
  const made = (label, ixs, binders, parts, make) => ({ label: `@${t.k} ${label}`, ixs, binders, parts, make });
  switch (t.k) {
    case "Num": return made(`${t.top}/${t.bottom}`, [], [], [], () => t);
    case "Atom": return made(t.name, t.ix, [], [], (ixs) => atom(t.name, ixs));
    case "Lam": return made("", [], t.binders, [t.body], (_, binders, [body]) => lam(binders, body));
    case "App": {
      const label = `${t.fn} ${t.ix.length} ${t.slots.map(([n, ix]) => `${n}:${ix.length}`)}`;
      return made(label, [...t.ix, ...t.slots.flatMap(([, ix]) => ix)], [], t.args, (ixs, _, args) => {
        const rest = ixs.slice(t.ix.length);
        return app(t.fn, ixs.slice(0, t.ix.length), args, t.slots.map(([n, ix]) => [n, rest.splice(0, ix.length)]));
      });
    }
    case "Add": return made("", [], [], t.terms, (_, __, terms) => add(terms));
    case "Mul": return made("", [], [], t.factors, (_, __, factors) => mul(...factors));
    case "Sum": return made("", t.low ? [t.low, t.high] : [], [t.v], [t.body], (
      ([low, high], [v], [body]) => sum(v, low ?? null, high ?? null, body)));
    case "Prod": return made("", [t.low, t.high], [], [t.factor], ([low, high], _, [f]) => prod(low, high, f));
    case "Equation": return made("", [], t.every, [t.left, t.right], (_, every, sides) => equation(every, ...sides));
    default: throw new Error(`no term: ${t.k}`);
  }
}

const FREE = Symbol("free variables"); // a cache
/** The set of variables that are free in a term, an array or an equation. */
function free(t) {
  if (!t[FREE]) {
    const { ixs, binders, parts } = anatomy(t);
    const inside = parts.flatMap((part) => [...free(part)]).filter((v) => !binders.includes(v));
    t[FREE] = new Set([...ixs.flatMap((ix) => ix.vars), ...inside]);
  }
  return t[FREE];
}
const freeTimes = (...terms) => [...new Set(terms.flatMap((t) => [...free(t)]))].filter(isTime);

/** The names bound inside a term, and all its atoms. */
const boundNames = (t) => [...anatomy(t).binders.map(nameOf), ...anatomy(t).parts.flatMap(boundNames)];
const atoms = (t) => (t.k === "Atom" ? [t] : anatomy(t).parts.flatMap(atoms));

/** How many records a term is made of. */
function size(t) {
  const { ixs, binders, parts } = anatomy(t);
  return 1 + binders.length + total(ixs.map((ix) => 1 + ix.vars.length)) + total(parts.map(size));
}
const checkedRecords = (count) => demand(count <= MAX_RECORDS, "a source makes the two sides too large");

function substIx(ix, map) {
  if (!ix.vars.some((v) => map.has(v))) return ix;
  const values = ix.vars.map((v) => map.get(v) ?? single(v));
  return makeIx(values.flatMap((x) => x.vars), values.reduce((shift, x) => exact(shift + x.shift), ix.shift));
}

/** Substitute indices for variables; a binder that would capture is renamed, `always` all are. */
function subst(t, map, always = false) {
  if (!always && ![...map.keys()].some((v) => free(t).has(v))) return t;
  const { ixs, binders, parts, make } = anatomy(t);
  const inner = new Map([...map].filter(([v]) => !binders.includes(v)));
  const captured = new Set([...inner.values()].flatMap((ix) => ix.vars));
  const renamed = binders.map((v) => (always || captured.has(v) ? fresh(v) : v));
  binders.forEach((v, n) => renamed[n] !== v && inner.set(v, single(renamed[n])));
  return make(ixs.map((ix) => substIx(ix, map)), renamed, parts.map((part) => subst(part, inner, always)));
}
const freshen = (t) => subst(t, new Map(), true);

/** Texts of variables and of indices, in which `names` gives names to variables. */
const nameIn = (names, v) => names.get(v) ?? v;
const ixText = (ix, names) => `${ix.vars.map((v) => nameIn(names, v)).sort(compare).join("+")}+${ix.shift}`;
const ixTexts = (ixs, names) => `[${ixs.map((ix) => ixText(ix, names))}]`;

/** A text that two terms share just if they are equal up to the names of bound variables. */
function shape(t, names = new Map(), depth = 0) {
  const { label, ixs, binders, parts } = anatomy(t);
  const inner = new Map([...names, ...binders.map((v, n) => [v, `#${depth + n}`])]);
  const inside = parts.map((part) => shape(part, inner, depth + binders.length));
  return `${label}${ixTexts(ixs, names)}[${binders.map(sortOf)}][${inside}]`;
}

// ---------------------------------------------------------------- constraints on times
// A limit [u, v, c] says u - v <= c, u and v times or ZERO. Bounds hold all limits that follow from
// some, c least (shortest paths), and are never changed.
const ZERO = "";
const FAR = Infinity; // stands for "no limit"

class Bounds {
  /** rows: of each node u, a map from each v that limits it to the least c. */
  constructor(rows = new Map([[ZERO, new Map([[ZERO, 0]])]])) {
    this.rows = rows;
    this.nodes = [...rows.keys()];
  }
  /** The bounds that say: all these times are natural numbers. */
  static natural = (times) => new Bounds().extend(times, times.map((v) => [ZERO, v, 0]));
  /** The least c with u - v <= c, or FAR. */
  get = (u, v) => (u === v ? 0 : this.rows.get(u)?.get(v) ?? FAR);
  /** What is known of all but these times. */
  without(gone) {
    const kept = (entries) => new Map([...entries].filter(([v]) => !gone.includes(v)));
    return new Bounds(new Map([...kept(this.rows)].map(([u, row]) => [u, kept(row)])));
  }
  /** With more times and more limits; null if no integers satisfy them. */
  extend(times, limits) {
    const rows = new Map([...this.rows].map(([u, row]) => [u, new Map(row)]));
    for (const v of [...times, ...limits.flatMap(([u, w]) => [u, w])]) {
      if (!rows.has(v)) rows.set(v, new Map([[v, 0]]));
    }
    demand(rows.size <= MAX_TIMES + 1, "context and limits speak of too many times"); // and of ZERO
    for (const [u, v, c] of limits) {
      if ((rows.get(v).get(u) ?? FAR) + c < 0) return null;
      if (c >= (rows.get(u).get(v) ?? FAR)) continue;
      for (const row of rows.values()) {
        const head = row.get(u) ?? FAR;
        for (const [w, tail] of head === FAR ? [] : rows.get(v)) { // a shortest path uses a limit once
          const length = exact(exact(head + c) + tail);
          if (length < (row.get(w) ?? FAR)) row.set(w, length);
        }
      }
    }
    return new Bounds(rows);
  }
}

/** The node and the shift of a bound, its value being node + shift; and back. */
const nodeOf = (ix) => [ix.vars[0] ?? ZERO, ix.shift];
const nodeIx = (node, shift) => makeIx(node === ZERO ? [] : [node], shift);
/** low <= v <= high. */
const rangeLimits = (v, low, high) => [[nodeOf(low)[0], v, -low.shift], [v, ...nodeOf(high)]];
/** The least c for which bounds force `left - right <= c`, for indices as bounds are; or FAR. */
function gap(bounds, left, right) {
  const [[u, a], [v, b]] = [nodeOf(left), nodeOf(right)];
  return bounds.get(u, v) + a - b;
}

// ---------------------------------------------------------------- multiplying out
// A fraction is [top, bottom], BigInts in lowest terms. A monomial {coef, bound, limits, factors}
// is coef * Sum over bound, within limits, of the product of factors (Atom, App, Prod).
function fraction(top, bottom) {
  let [a, b] = [top < 0n ? -top : top, bottom];
  while (b) [a, b] = [b, a % b];
  return [top / a, bottom / a];
}
const times = ([a, b], [c, d]) => fraction(a * c, b * d);
const plus = ([a, b], [c, d]) => fraction(a * d + b * c, b * d);
const ONE = [1n, 1n];
const monomial = (factors, coef = ONE) => ({ coef, bound: [], limits: [], factors });

const withinLimit = (m) => demand(m.bound.length <= MAX_BOUND, "a monomial binds too many variables") && m;
const checkedSize = (count) => demand(count <= MAX_MONOMIALS, "too many monomials");
const checked = (list) => checkedSize(list.length) && list;
const product = (a, b) => withinLimit({ coef: times(a.coef, b.coef), bound: [...a.bound, ...b.bound],
  limits: [...a.limits, ...b.limits], factors: [...a.factors, ...b.factors] });
const products = (left, right) => checkedSize(left.length * right.length)
  && left.flatMap((a) => right.map((b) => product(a, b)));

/** The monomials of a term in which the indices of env stand for variables. Each expansion binds
 * variables of its own, so that monomials may be multiplied. */
function expand(t, env) {
  switch (t.k) {
    case "Num": return [monomial([], fraction(BigInt(t.top), BigInt(t.bottom)))];
    case "Atom": case "App": case "Prod": return [monomial([subst(t, env)])];
    case "Add": return t.terms.reduce((list, part) => checked(list.concat(expand(part, env))), []);
    case "Mul": return t.factors.reduce((list, part) => products(list, expand(part, env)), [monomial([])]);
    case "Sum": {
      const v = fresh(t.v);
      const limits = t.low ? rangeLimits(v, substIx(t.low, env), substIx(t.high, env)) : [];
      return products([{ ...monomial([]), bound: [v], limits }], expand(t.body, new Map(env).set(t.v, single(v))));
    }
    default: throw new Error(`no term: ${t.k}`);
  }
}

// ---------------------------------------------------------------- settling
/** Put the index `ix` (a constant, or one variable plus a constant) in place of the bound time v. */
function putIn(m, v, ix) {
  const [node, shift] = nodeOf(ix);
  const map = new Map([[v, ix]]);
  const moved = (u) => (u === v ? [node, shift] : [u, 0]);
  const limits = m.limits.map(([u, w, c]) => [moved(u)[0], moved(w)[0], exact(c - moved(u)[1] + moved(w)[1])]);
  return { ...m, bound: m.bound.filter((w) => w !== v), limits, factors: m.factors.map((f) => subst(f, map)) };
}

/** Rule b: a bound time that must equal a constant, else what is free in the whole term, else another. */
function forcedEqual(m, bounds) {
  const outer = bounds.nodes.filter((u) => u !== ZERO && !m.bound.includes(u)).sort(compare);
  const others = [ZERO, ...outer.filter((u) => !isFresh(u)), ...outer.filter(isFresh)];
  for (const v of m.bound.filter(isTime)) {
    for (const u of [...others, ...m.bound.filter(isTime)]) {
      const above = bounds.get(v, u);
      if (u !== v && above + bounds.get(u, v) === 0) return [putIn(m, v, nodeIx(u, above))];
    }
  }
  return null;
}

/** Rule c: a bound time that does not begin at 0. */
function forcedStart(m, bounds) {
  for (const v of m.bound.filter(isTime)) {
    const c = bounds.get(ZERO, v); // -c <= v
    const w = fresh(v);
    if (c !== FAR && c !== 0) return [putIn({ ...m, bound: [...m.bound, w] }, v, nodeIx(w, -c))];
  }
  return null;
}

/** Rule d: a range that reaches the peel is cut there. */
function cutAtPeel(m, bounds, peel) {
  const [t, c] = peel ? nodeOf(peel) : [null, 0];
  for (const v of m.bound.filter(isTime)) {
    const a = bounds.get(v, t);
    if (a !== FAR && a >= c) return [{ ...m, limits: [...m.limits, [v, t, a - 1]] }, putIn(m, v, nodeIx(t, a))];
  }
  return null;
}

/** Rule e: a product that is empty, or whose last factor is taken out. */
function openProduct(m, bounds, peel) {
  for (const [n, f] of m.factors.entries()) {
    if (f.k !== "Prod") continue;
    const rest = { ...m, factors: m.factors.filter((_, other) => other !== n) };
    if (gap(bounds, f.high, f.low) < 0) return [rest];
    const h = nodeOf(f.high)[0];
    const last = h === nodeOf(f.low)[0] || (peel && h === nodeOf(peel)[0] && f.high.shift >= peel.shift);
    if (!last || gap(bounds, f.low, f.high) > 0) continue;
    const shorter = monomial([prod(f.low, shifted(f.high, -1), f.factor)]);
    return products(products([rest], [shorter]), expand(f.factor.body, new Map([[f.factor.binders[0], f.high]])));
  }
  return null;
}

/** The settled monomials that m comes to in a context, each with the bounds known in it. */
function settle(m, context, peel) {
  const [todo, settled] = [[m], []];
  while (todo.length) {
    const next = withinLimit(todo.pop());
    const bounds = context.extend(next.bound.filter(isTime), next.limits);
    if (!bounds) continue; // no integers satisfy the limits
    const parts = forcedEqual(next, bounds) ?? forcedStart(next, bounds)
      ?? cutAtPeel(next, bounds, peel) ?? openProduct(next, bounds, peel);
    if (parts) todo.push(...parts);
    else checkedSize(settled.push({ ...next, bounds }));
  }
  return settled;
}

// ---------------------------------------------------------------- normal form
// A form {terms, free} lists [coefficient, monomial], no two monomials alike. An array in it is
// {binders, form}. Forms, monomials and factors know their free variables.
/** The normal form of a term. `work` counts settled monomials. */
function normalForm(t, context, peel, work) {
  const alike = new Map();
  for (const m of expand(t, new Map()).flatMap((part) => settle(part, context, peel))) {
    checkedSize((work.count += 1));
    const ready = withArguments(m, context, peel, work);
    const text = monomialText(ready, new Map(), 0);
    alike.set(text, [plus(alike.get(text)?.[0] ?? [0n, 1n], m.coef), ready]);
  }
  const terms = [...alike.values()].filter(([coef]) => coef[0] !== 0n);
  return { terms, free: [...new Set(terms.flatMap(([, m]) => m.free))], texts: new Map() };
}

/** A text that terms share just if they have one normal form in the context. */
const topForm = (t, context, peel) => formText(normalForm(t, context, peel, { count: 0 }), new Map(), 0);

function withArguments(m, context, peel, work) {
  const array = ({ binders, body }, known) => ({ binders, form: normalForm(body, known, peel, work) });
  const outside = ({ binders, form }) => form.free.filter((v) => !binders.includes(v));
  const factors = m.factors.map((f) => {
    if (f.k === "Atom") return { ...f, free: [...free(f)] };
    const known = m.bounds.without(m.bound.filter((v) => !free(f).has(v)));
    const arrays = (f.k === "App" ? f.args : [f.factor]).map((arg) => array(freshen(arg), known));
    const ixs = f.k === "App" ? [...f.ix, ...f.slots.flatMap(([, ix]) => ix)] : [f.low, f.high];
    return { ...f, arrays, free: [...ixs.flatMap((ix) => ix.vars), ...arrays.flatMap(outside)] };
  });
  const limits = limitsToCompare(m, context);
  const all = [...factors.flatMap((f) => f.free), ...limits.flatMap(([u, v]) => [u, v])];
  return { bound: m.bound, factors, limits, free: all.filter((v) => v !== ZERO && !m.bound.includes(v)) };
}

/** The limits that monomials are compared by, but for those that the others imply by way of ZERO or
 * (between bound times) of a time free here: whoever has the others and the context has them. */
function limitsToCompare({ bound, bounds }, context) {
  const outer = bounds.nodes.filter((v) => !bound.includes(v));
  const all = bounds.nodes.flatMap((u) => bounds.nodes.map((v) => [u, v, bounds.get(u, v)]));
  return all.filter(([u, v, c]) => {
    const inside = [u, v].filter((w) => bound.includes(w)).length;
    if (u === v || c === FAR || (inside === 0 && c >= context.get(u, v))) return false;
    const implied = (w) => w !== u && w !== v && bounds.get(u, w) + bounds.get(w, v) <= c;
    return !(inside === 2 ? outer : [ZERO]).some(implied);
  });
}

// ---------------------------------------------------------------- texts of normal forms
// Two monomials have one text just if they differ by a renaming of bound variables. `names` maps
// variables bound further out to their names; where it gives two of them one name (a colour), the
// text still does not depend on what they were called before. Names at one depth are "#depth.n".
const sortedText = (texts) => `(${texts.sort(compare).join(";")})`;

function formText({ terms, free, texts }, names, depth) {
  const key = `${depth} ${free.map((v) => nameIn(names, v))}`; // all that the text depends on
  const termText = ([[top, bottom], m]) => `${top}/${bottom}*${monomialText(m, names, depth)}`;
  if (!texts.has(key)) texts.set(key, sortedText(terms.map(termText)));
  return texts.get(key);
}

function factorText(f, names, depth) {
  if (f.k === "Atom") return `${f.name}${ixTexts(f.ix, names)}`;
  const arrays = f.arrays.map(({ binders, form }) => {
    const inner = new Map([...names, ...binders.map((v, n) => [v, `#${depth}.${n}`])]);
    return `[${binders.map(sortOf)}]${formText(form, inner, depth + 1)}`;
  });
  if (f.k === "Prod") return `@Prod${ixTexts([f.low, f.high], names)}${arrays}`;
  const slots = f.slots.map(([n, ix]) => `${n}${ixTexts(ix, names)}`);
  return `@App ${f.fn}${ixTexts(f.ix, names)}{${arrays}}{${slots}}`;
}

function partsText({ factors, limits }, names, depth) {
  const limitTexts = limits.map(([u, v, c]) => `${nameIn(names, u)}-${nameIn(names, v)}:${c}`);
  return sortedText(factors.map((f) => factorText(f, names, depth))) + sortedText(limitTexts);
}

/** The least text of a monomial over all ways to number its bound variables that colours do not
 * rule out: refine colours, and where some agree, try each variable of one colour as its first. */
function monomialText(m, names, depth) {
  let leaves = 0;
  const leaf = (colours) => {
    demand((leaves += 1) <= MAX_LEAVES, "too many ways to name the variables of a monomial");
    const order = [...m.bound].sort((u, v) => colours.get(u) - colours.get(v));
    const inner = new Map([...names, ...order.map((v, n) => [v, `#${depth}.${n}`])]);
    return `[${order.map(sortOf)}]${partsText(m, inner, depth + 1)}`;
  };
  const search = (colours, everywhere) => {
    const cell = ambiguous(colours);
    if (!cell) return leaf(colours);
    const apart = (v) => new Map([...colours].map(([u, c]) => [u, 2 * c + (u === v ? 0 : 1)])); // v comes first
    const child = (v, all) => search(refine(m, apart(v), names, depth), all);
    if (!everywhere) return child(cell[0], false);
    // Two equal leaves show a symmetry that takes one child to the other: one of them will do.
    const firsts = new Map(cell.map((v) => [child(v, false), v]));
    return [...firsts.values()].map((v) => child(v, true)).sort(compare)[0];
  };
  return search(refine(m, new Map(m.bound.map((v) => [v, 0])), names, depth), true);
}

/** The variables of the first of the smallest colours that several share, or undefined. */
function ambiguous(colours) {
  const cells = new Map();
  for (const [v, colour] of colours) cells.set(colour, [...(cells.get(colour) ?? []), v]);
  const order = (a, b) => a[1].length - b[1].length || a[0] - b[0];
  return [...cells].filter(([, cell]) => cell.length > 1).sort(order)[0]?.[1];
}

/** Split colours by what their variables occur in until that splits no more. The order of colours
 * is kept, and nothing depends on what a variable is called. */
function refine(m, colours, names, depth) {
  const count = () => new Set(colours.values()).size;
  for (let last = 0; ; last = count()) {
    const seen = new Map();
    for (const [v, colour] of colours) {
      const inner = new Map([...names, ...[...colours].map(([u, c]) => [u, u === v ? "*" : `~${depth}.${c}`])]);
      const limits = m.limits.filter(([u, w]) => u === v || w === v);
      const around = { factors: m.factors.filter((f) => f.free.includes(v)), limits };
      const place = `${String(colour).padStart(4, "0")} ${sortOf(v)}`;
      seen.set(v, count() === colours.size ? place : `${place} ${partsText(around, inner, depth + 1)}`);
    }
    const ranks = new Map([...new Set(seen.values())].sort(compare).map((text, n) => [text, n]));
    colours = new Map([...seen].map(([v, text]) => [v, ranks.get(text)]));
    if (count() === last || count() === colours.size) return colours;
  }
}

// ---------------------------------------------------------------- differentials
const DIRECTION = "$E"; // a symbol that no record has
const sumOver = (widths, t) => widths.reduceRight((body, v) => sum(v, null, null, body), t);
const hasSymbol = (t, name) => atoms(t).some((a) => a.name === name);

/** d(t) when the symbol `param` moves in the DIRECTION. */
function differential(t, param) {
  if (!hasSymbol(t, param)) return num(0); // which counts as a monomial, as an empty sum would not
  const d = (part) => differential(part, param);
  switch (t.k) {
    case "Atom": return atom(DIRECTION, t.ix);
    case "Add": return add(t.terms.map(d));
    case "Mul": return add(t.factors.map((f, n) => mul(...t.factors.map((g, m) => (m === n ? d(f) : g)))));
    case "Sum": return sum(t.v, t.low, t.high, d(t.body));
    case "App": return differentialOfApp(t, param);
    default: return refuse("no differential: the parameter occurs in a product over times");
  }
}
function differentialOfApp(t, param) {
  const minus = (...factors) => mul(num(-1), ...factors);
  if (!t.ix.length && !t.slots.length && t.args.length === 1 && !t.args[0].binders.length) {
    const inner = differential(t.args[0].body, param); // for step as well: it may have to be refused
    if (t.fn === "sigmoid") return mul(t, add([num(1), minus(t)]), inner);
    if (t.fn === "tanh") return mul(add([num(1), minus(t, t)]), inner);
    if (t.fn === "step") return mul(num(0), inner);
  }
  return add(t.args.flatMap((arg, k) => {
    if (!hasSymbol(arg, param)) return [];
    demand(!arg.binders.some(isTime), "no differential: the parameter occurs in an array over times");
    const { binders, body } = freshen(arg);
    const partial = app(t.fn, t.ix, t.args, [...t.slots, [k, binders.map(single)]]);
    return [sumOver(binders, mul(partial, differential(body, param)))];
  }));
}

// ---------------------------------------------------------------- definitions
/** The leading times of a list of variables: at its front, two at most. */
const leading = (every) => every.slice(0, 2).filter((_, n) => every.slice(0, n + 1).every(isTime));
const contents = (d) => (d.k === "Define" ? [d.term, ...(d.start ? [d.start] : [])] : [d.loss, d.at]);
const symbols = (d) => [d.name, d.param ?? d.name, ...contents(d).flatMap(atoms).map((a) => a.name)];

/** Check all blocks; the definitions by name. */
function admit(blocks) {
  const [defined, seen] = [new Map(), new Set()];
  for (const block of blocks) {
    demand(distinct(block.map((d) => d.name)), "a block defines a symbol twice");
    for (const d of block) {
      demand(!seen.has(d.name), `${d.name} occurs before it is defined`);
      admitOne(d, block, seen);
      defined.set(d.name, d);
    }
    block.flatMap(symbols).forEach((name) => seen.add(name));
  }
  return defined;
}

function admitOne(d, block, seen) {
  const names = d.every.map(nameOf);
  demand(distinct(names), `two variables of one name in the definition of ${d.name}`);
  demand(!contents(d).flatMap(boundNames).some((name) => names.includes(name)), `${d.name} binds a name twice`);
  demand(contents(d).flatMap((t) => [...free(t)]).every((v) => d.every.includes(v)), `a free variable in ${d.name}`);
  const level = leading(d.every).length;
  if (d.k === "DefineGradient") {
    const others = block.filter((other) => other !== d).flatMap(symbols);
    const own = !seen.has(d.param) && !others.includes(d.param) && d.param !== d.name;
    demand(own && !hasSymbol(d.at, d.param), `the parameter of ${d.name} occurs elsewhere`);
    return contents(d).forEach((t) => checkDue(t, d, block, [0, level, 0]));
  }
  if (!d.start) return checkDue(d.term, d, block, [0, level, 0]);
  demand(level > 0, `${d.name} recurs over no time`);
  demand(!free(d.start).has(leading(d.every)[level - 1]), `the start of ${d.name} has its time`);
  checkDue(d.term, d, block, level === 1 ? [1, 1, 0] : [0, 2, 1]);
  return checkDue(d.start, d, block, [0, level, -FAR]);
}

/** Symbols of the block are used only where they are due before `due`, and at `due` if their
 * definition comes before d: otherwise values would depend on themselves. */
function checkDue(t, d, block, due) {
  const lead = leading(d.every);
  for (const a of atoms(t)) {
    const place = block.findIndex((other) => other.name === a.name);
    if (place < 0) continue;
    const level = leading(block[place].every).length;
    const after = (n) => {
      const ix = a.ix[n];
      return n < level && ix?.vars.length === 1 && ix.vars[0] === lead[n] ? ix.shift : FAR;
    };
    const used = [after(0), level, level < 2 ? 0 : after(1), place];
    const limit = [...due, block.indexOf(d)];
    const differ = used.findIndex((x, n) => x !== limit[n]);
    demand(differ >= 0 && used[differ] < limit[differ], `${d.name} uses ${a.name} before it is due`);
  }
}

// ---------------------------------------------------------------- rules
const text = (t) => JSON.stringify(t); // "name for name": bound names included
const once = (equations) => [...new Map(equations.map((e) => [text(e), e])).values()];

/** Replace atoms by put(atom, bounds), bounds being what context and enclosing sums say (null if
 * they cannot be). Bound variables of t must be fresh, lest they capture what is put in. */
function replaceAtoms(t, bounds, put) {
  if (t.k === "Atom") return put(t, bounds);
  const { ixs, binders, parts, make } = anatomy(t);
  const inner = t.k === "Sum" && t.low ? bounds && bounds.extend([t.v], rangeLimits(t.v, t.low, t.high)) : bounds;
  return make(ixs, binders, parts.map((part) => replaceAtoms(part, inner, put)));
}

/** What an equation's quantified variables must be for its left side to be the atom, or null. */
function instance({ every, left }, a, bounds) {
  if (left.k !== "Atom" || left.name !== a.name || left.ix.length !== a.ix.length) return null;
  const map = new Map();
  for (const [n, { vars, shift }] of left.ix.entries()) {
    if (vars.length === 1 && every.includes(vars[0])) map.set(vars[0], shifted(a.ix[n], -shift));
  }
  const allowed = (v) => {
    const ix = map.get(v); // must be a natural number, or an element that is there
    if (!ix) return false;
    if (isTime(v)) return isBound(ix) && (!bounds || gap(bounds, makeIx([], 0), ix) <= 0);
    return ix.vars.length === 1 && ix.shift === 0 && sortOf(ix.vars[0]) === sortOf(v);
  };
  return every.every(allowed) && shape(subst(left, map)) === shape(a) ? map : null;
}

const RULES = {
  Definition(rule, _, defined) {
    const d = defined.get(rule.name) ?? refuse(`no definition of ${rule.name}`);
    if (d.k === "DefineGradient") return gradient(d, rule);
    demand(!rule.entry && (d.start || !rule.start), "no such equation in the definition");
    const r = leading(d.every).at(-1);
    const first = rule.start ? makeIx([], 0) : r && shifted(single(r), 1);
    const ix = d.every.map((v) => (d.start && v === r ? first : single(v)));
    const every = rule.start ? d.every.filter((v) => v !== r) : d.every;
    return { hypotheses: [], equation: equation(every, atom(d.name, ix), rule.start ? d.start : d.term) };
  },
  Assume: (rule) => ({ hypotheses: [rule.equation], equation: rule.equation }),
  Reflexivity: ({ every, term }) => ({ hypotheses: [], equation: equation(every, term, term) }),
  Calculate(rule, [target, ...sources]) {
    demand(target, "a calculation without a target");
    let [side, term] = [freshen(target.equation.right), freshen(rule.term)];
    for (const { equation: source } of sources) {
      const bounds = Bounds.natural(freeTimes(side, term));
      const right = freshen(source.right);
      let count = 0; // records put in: what is too large is refused before it is made
      const used = (t) => replaceAtoms(t, bounds, (a, known) => {
        const map = instance(source, a, known);
        const value = map ? subst(right, map) : a;
        return checkedRecords((count += size(value))) && value;
      });
      [side, term] = [used(side), used(term)];
      checkedRecords(size(side) + size(term));
    }
    const context = Bounds.natural(freeTimes(side, term, rule.term));
    const form = (t) => topForm(t, context, rule.peel);
    const wanted = form(side);
    demand(wanted === form(rule.term) || wanted === form(term), "the normal forms differ");
    const hypotheses = once([target, ...sources].flatMap((premise) => premise.hypotheses));
    return { hypotheses, equation: equation(target.equation.every, target.equation.left, rule.term) };
  },
  Induction({ time, predicate, pick }, premises) {
    const count = predicate.length;
    demand(pick >= 0 && pick < count && premises.length === 2 * count, "wrong premises or pick of an induction");
    demand(!predicate.some((p) => p.every.includes(time)), "the predicate quantifies the time of an induction");
    premises.forEach((premise, n) => {
      const due = subst(predicate[n % count], new Map([[time, n < count ? makeIx([], 0) : shifted(single(time), 1)]]));
      demand(shape(premise.equation) === shape(due), `premise ${n} is not what the induction needs`);
    });
    const assumed = predicate.map(text);
    const left = (premise, n) => premise.hypotheses.filter((h) => n < count || !assumed.includes(text(h)));
    const hypotheses = once(premises.flatMap(left));
    demand(!hypotheses.some((h) => free(h).has(time)), "a hypothesis speaks of the time of an induction");
    const picked = predicate[pick];
    return { hypotheses, equation: equation([time, ...picked.every], picked.left, picked.right) };
  },
};

/** The equation of a gradient, if the entry is one: d(loss) = Sum of entry * DIRECTION. */
function gradient(d, rule) {
  demand(!rule.start, "a gradient has no start");
  const { binders: own, body: given } = rule.entry ?? lam([], d.loss);
  const body = freshen(given); // its own binders keep their names, which must differ from those of every
  const fits = `${own.map(sortOf)}` === `${d.at.binders.map(sortOf)}` && !own.some(isTime);
  demand(fits, "the entry has not the binders of the parameter");
  const ix = own.map(single);
  const moved = sumOver(own, mul(body, atom(DIRECTION, ix)));
  const change = differential(freshen(d.loss), d.param);
  const context = Bounds.natural(freeTimes(change, moved));
  demand(topForm(change, context, null) === topForm(moved, context, null), "the entry is not the gradient");
  const at = freshen(d.at);
  const value = replaceAtoms(body, null, (a) => {
    if (a.name !== d.param) return a;
    demand(a.ix.length === ix.length, "the parameter has a wrong number of indices");
    return subst(at.body, new Map(at.binders.map((v, n) => [v, a.ix[n]])));
  });
  const left = atom(d.name, [...d.every.map(single), ...ix]);
  return { hypotheses: [], equation: equation([...d.every, ...own], left, value) };
}

// ---------------------------------------------------------------- replay
function checkStep({ rule, premises, conclusion }, before, defined) {
  demand(premises.every((n) => n >= 0 && n < before.length), "a premise that is no earlier step");
  demand(!premises.length || ["Calculate", "Induction"].includes(rule.k), `${rule.k} has no premises`);
  const made = RULES[rule.k](rule, premises.map((n) => before[n]), defined);
  checkSequent(made); // before names are compared: to rename `every` may hide that a hypothesis has one
  checkSequent(conclusion);
  const shapes = ({ hypotheses, equation: e }) => [...hypotheses, e].map((part) => shape(part)).join("\n");
  demand(shapes(made) === shapes(conclusion), `${rule.k} does not conclude this`);
}

/** What holds of each conclusion, the rule's own and the recorded one. */
function checkSequent({ hypotheses, equation: e }) {
  demand([...hypotheses, e].every(({ every }) => distinct(every.map(nameOf))), "two quantified variables of one name");
  demand(!hypotheses.some((h) => e.every.some((v) => free(h).has(v))), "a hypothesis has a quantified variable");
  demand([...hypotheses, e].every((part) => [...free(part)].every(isTime)), "a width is free");
}

/** Run a check; whatever it throws becomes a refusal that says where. */
function located(where, check) {
  try {
    return check();
  } catch (error) {
    throw new Refusal(`${where}${error instanceof Refusal ? "" : `${error.name}: `}${error.message}`);
  }
}

/** Check a proof, and that it ends with the statement if one is given; the number of its steps. */
function replayProof(json, statement, where) {
  const { definitions, steps } = located(`${where}: `, () => read("Proof", json, 0));
  const defined = located(`${where}, definitions: `, () => admit(definitions));
  steps.forEach((step, n) => {
    const before = steps.slice(0, n).map((earlier) => earlier.conclusion);
    located(`${where}, step ${n}: `, () => checkStep(step, before, defined));
  });
  const last = steps.at(-1).conclusion;
  const proves = () => demand(!last.hypotheses.length && text(read("Equation", statement, 0)) === text(last.equation),
    "another equation is proved, or under hypotheses");
  if (statement !== null) located(`${where}, statement: `, proves);
  return steps.length;
}

/** Check a record, a Proof or an object with parts; how many parts and steps it has. */
function replay(json) {
  const parts = Array.isArray(json) ? [{ proof: json, statement: null }] : json?.parts;
  demand(Array.isArray(parts) && parts.length, "no proof and no parts");
  const steps = parts.map((part, n) => {
    const where = `part ${n + 1} (${typeof part?.label === "string" ? part.label : ""})`;
    const whole = part && Object.hasOwn(part, "proof") && Object.hasOwn(part, "statement");
    demand(whole, `${where}: no proof or no statement`);
    return replayProof(part.proof, part.statement, where);
  });
  return `${parts.length} parts, ${total(steps)} steps`;
}

/** [accepted, what to say] of the text of a record. */
function verdict(source) {
  try {
    return [true, replay(parse(source))];
  } catch (error) {
    return [false, String(error.message).replace(/\s+/g, " ")];
  }
}

function judge(file, byLines) {
  const source = readFileSync(file, "utf8");
  if (byLines) {
    const said = ([accepted, reason]) => (accepted ? "accepted" : `refused\t${reason}`);
    source.replace(/\n$/, "").split("\n").forEach((line) => console.log(said(verdict(line))));
    return 0;
  }
  const [accepted, reason] = verdict(source);
  console.log(`${accepted ? "accepted" : "refused"} ${file}: ${reason}`);
  return accepted ? 0 : 1;
}

function main(args) {
  const byLines = args[0] === "--lines";
  const files = byLines ? args.slice(1) : args;
  const wrong = !files.length || (byLines && files.length > 1) || files.some((file) => file.startsWith("--"));
  if (wrong) console.error("usage: replay.mjs FILE [FILE...] | --lines FILE");
  const code = (file) => {
    try {
      return judge(file, byLines);
    } catch (error) {
      console.error(`${file}: ${error.message}`);
      return 2;
    }
  };
  return wrong ? 2 : Math.max(...files.map(code));
}

process.exitCode = main(process.argv.slice(2));
