#!/usr/bin/env node
// A second checker for recorded proofs, written from the page of meaning alone, without reading the
// other: a mistake in one is then no mistake in both. In doubt it takes the stricter reading.
//   node tools/replay.mjs FILE [FILE...]   one line a file; exit 0: all accepted, 1: some refused,
//                                          2: wrong usage or a file that cannot be read
//   node tools/replay.mjs --lines FILE     `accepted` or `refused<TAB>reason` for each line of FILE
import { readFileSync } from "node:fs";

const MAX_SHIFT = 100; // of an index in a record
const MAX_DEPTH = 100; // records within records
const MAX_LIST = 100; // variables in a list
const MAX_WEIGHT = 300_000; // of a normal form, or of using the sources of a calculation
const MAX_BOUND = 12; // variables that one monomial binds
const MAX_TIMES = 100; // that context and limits speak of
const MAX_SOURCES = 100; // of a calculation
const MAX_RECORDS = 100_000; // weight of putting in a point, or of what a differential copies

let place = ""; // what is being checked, for the message
const refuse = (reason) => { throw new Error(reason); };
const demand = (condition, reason) => condition || refuse(reason);
const exact = (n) => demand(Number.isSafeInteger(n), "an integer is out of range") && n;

// ---------------------------------------------------------------- variables and indices
// A variable is the text "name sort"; such texts sort by name, then sort. Fresh ones begin with a
// sign that no name has and that sorts after all letters, and are never made twice.
let freshCount = 0;
const fresh = (like) => `\u2200${(freshCount += 1)} ${sortOf(like)}`;
const numbered = (like, n) => `\u2200.${n} ${sortOf(like)}`; // no name of a fresh one either
const nameOf = (v) => v.slice(0, v.indexOf(" "));
const sortOf = (v) => v.slice(v.indexOf(" ") + 1);
const isTime = (v) => sortOf(v) === "time";
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const distinct = (list) => new Set(list).size === list.length;
const total = (list) => list.reduce((a, b) => a + b, 0);
const isText = (json) => typeof json === "string";
const makeIx = (vars, shift) => ({ k: "Ix", vars: [...vars].sort(compare), shift: exact(shift) });
const single = (v) => makeIx([v], 0);
const constant = (shift) => makeIx([], shift);
const shifted = (ix, by) => makeIx(ix.vars, ix.shift + by);
/** A constant, or one time plus a constant: what may bound a range, or stand for a time. */
const isBound = (ix) => ix.vars.length === 0 || (ix.vars.length === 1 && isTime(ix.vars[0]));

// ---------------------------------------------------------------- reading records
// Kinds: a type or group of types; X* a list of X; X? an X or null; name, int, bool, slot.
const RECORDS = {
  Var: { name: "name", sort: "name" }, Ix: { vars: "Var*", shift: "int" },
  Num: { top: "int", bottom: "int" }, Atom: { name: "name", ix: "Ix*" },
  Lam: { binders: "Var*", body: "term" }, Add: { terms: "term*" }, Mul: { factors: "term*" },
  App: { fn: "name", ix: "Ix*", args: "Lam*", slots: "slot*" },
  Sum: { v: "Var", low: "Ix?", high: "Ix?", body: "term" },
  Prod: { low: "Ix", high: "Ix", factor: "Lam" },
  Equation: { every: "Var*", left: "term", right: "term" },
  Define: { name: "name", every: "Var*", term: "term", start: "term?" },
  DefineGradient: { name: "name", every: "Var*", param: "name", loss: "term", at: "Lam" },
  Sequent: { hypotheses: "Equation*", equation: "Equation" }, Assume: { equation: "Equation" },
  Definition: { name: "name", entry: "Lam?", start: "bool" },
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
const NAME = /^[A-Za-z_\u0391-\u03A9\u03B1-\u03C9][A-Za-z0-9_\u0391-\u03A9\u03B1-\u03C9]{0,99}$/;

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
    demand(`${r.factor.binders.map(sortOf)}` === "time", "a product not over a time");
  },
  Equation: (r) => demand(distinct(r.every.map(nameOf)), "two quantified variables of one name"),
  Calculate: (r) => demand(!r.peel || (r.peel.vars.length && isBound(r.peel)), "a bad peel"),
  Induction: (r) => demand(isTime(r.time), "induction on a width"),
  Proof: (r) => demand(r.steps.length > 0, "a proof without steps"),
};

/** A JSON value as a record of the given kind; depth counts the records around it. */
function read(kind, json, depth) {
  const inner = kind.slice(0, -1);
  const list = () => demand(Array.isArray(json), `no ${kind} where one belongs`) && json;
  if (kind.endsWith("?")) return json === null ? null : read(inner, json, depth);
  if (kind.endsWith("*")) {
    demand(kind !== "Var*" || list().length <= MAX_LIST, "a list of too many variables");
    return list().map((item) => read(inner, item, depth));
  }
  if (kind === "name") return demand(isText(json) && NAME.test(json), "a bad name") && json;
  if (kind === "bool") return demand(typeof json === "boolean", "a bad truth value") && json;
  if (kind === "int") return demand(Number.isSafeInteger(json), "a bad integer") && json + 0;
  if (kind !== "slot") return readRecord(GROUPS[kind] ?? [kind], list(), depth + 1);
  demand(list().length === 2, "a bad slot");
  return [read("int", json[0], depth), read("Ix*", json[1], depth)];
}
function readRecord(types, json, depth) {
  const [type, ...values] = json;
  demand(types.includes(type), `no ${types.join(" or ")} where one belongs`);
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
  let inside = false; // a string
  const token = /\\.|"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  return JSON.parse(text.replace(token, (s) => {
    if (s === '"') inside = !inside;
    return !inside && /\d.*[.eE]/.test(s) ? "{}" : s;
  }));
}

// ---------------------------------------------------------------- terms: variables, substitution
const num = (top) => ({ k: "Num", top, bottom: 1 });
const add = (terms) => ({ k: "Add", terms });
const mul = (factors) => ({ k: "Mul", factors });
const atom = (name, ix) => ({ k: "Atom", name, ix });
const app = (fn, ix, args, slots) => ({ k: "App", fn, ix, args, slots });
const lam = (binders, body) => ({ k: "Lam", binders, body });
const sum = (v, low, high, body) => ({ k: "Sum", v, low, high, body });
const prod = (low, high, factor) => ({ k: "Prod", low, high, factor });
const equation = (every, left, right) => ({ k: "Equation", every, left, right });

/** What a term, array or equation is made of: a label, indices, binders, and parts within the
 * binders; and how to make the same of other indices, binders and parts. */
function anatomy(t) {
  const made = (label, ixs, binders, parts, make) => (
    { label: `@${t.k} ${label}`, ixs, binders, parts, make });
  switch (t.k) {
    case "Num": return made(`${t.top}/${t.bottom}`, [], [], [], () => t);
    case "Atom": return made(t.name, t.ix, [], [], (ixs) => atom(t.name, ixs));
    case "Lam": return made("", [], t.binders, [t.body], (_, binders, [b]) => lam(binders, b));
    case "App": {
      const slotIxs = t.slots.flatMap(([, ix]) => ix);
      const label = `${t.fn} ${t.ix.length} ${t.slots.map(([n, ix]) => `${n}:${ix.length}`)}`;
      return made(label, [...t.ix, ...slotIxs], [], t.args, (ixs, _, args) => {
        const rest = ixs.slice(t.ix.length);
        const slots = t.slots.map(([n, ix]) => [n, rest.splice(0, ix.length)]);
        return app(t.fn, ixs.slice(0, t.ix.length), args, slots);
      });
    }
    case "Add": return made("", [], [], t.terms, (_, __, terms) => add(terms));
    case "Mul": return made("", [], [], t.factors, (_, __, factors) => mul(factors));
    case "Sum": return made("", t.low ? [t.low, t.high] : [], [t.v], [t.body], (
      ([low, high], [v], [body]) => sum(v, low ?? null, high ?? null, body)));
    case "Prod":
      return made("", [t.low, t.high], [], [t.factor], ([low, high], _, [f]) => prod(low, high, f));
    case "Equation": return made("", [], t.every, [t.left, t.right], (
      (_, every, [left, right]) => equation(every, left, right)));
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

/** All that a term is made of, itself included; its atoms; the names bound in it. */
const nodes = (t) => [t, ...anatomy(t).parts.flatMap(nodes)];
const atoms = (t) => (t.k === "Atom" ? [t] : anatomy(t).parts.flatMap(atoms));
const boundNames = (t) => nodes(t).flatMap((part) => anatomy(part).binders.map(nameOf));
/** How many records a term is made of, and how deep they nest. */
function size(t) {
  const { ixs, binders, parts } = anatomy(t);
  return 1 + binders.length + total(ixs.map((ix) => 1 + ix.vars.length)) + total(parts.map(size));
}
function depthOf(t) {
  const { ixs, binders, parts } = anatomy(t);
  const inside = [...binders.map(() => 1), ...ixs.map((ix) => (ix.vars.length ? 2 : 1))];
  return 1 + [...inside, ...parts.map(depthOf)].reduce((a, b) => Math.max(a, b), 0);
}
/** For each node that binds variables, the square of how many times are spoken of in it. */
function scopes(t, times) {
  const { binders, parts } = anatomy(t);
  const inside = times + (t.k === "Sum" && isTime(t.v) ? 1 : 0);
  return total(parts.map((part) => scopes(part, inside))) + (binders.length ? inside ** 2 : 0);
}
/** How many records stand around each of a term's atoms that have one of these names. */
const depths = (t, names, around = 0) => (t.k === "Atom"
  ? (names.includes(t.name) ? [around] : [])
  : anatomy(t).parts.flatMap((part) => depths(part, names, around + 1)));

function substIx(ix, map) {
  const values = ix.vars.map((v) => map.get(v) ?? single(v));
  return makeIx(values.flatMap((x) => x.vars), total(values.map((x) => x.shift)) + ix.shift);
}

/** Substitute indices for variables; a binder that would capture is renamed, `always` all are. */
function subst(t, map, always = false) {
  if (!always && ![...map.keys()].some((v) => free(t).has(v))) return t;
  const { ixs, binders, parts, make } = anatomy(t);
  const inner = new Map([...map].filter(([v]) => !binders.includes(v)));
  const captured = new Set([...inner.values()].flatMap((ix) => ix.vars));
  const renamed = binders.map((v) => (always || captured.has(v) ? fresh(v) : v));
  binders.forEach((v, n) => renamed[n] !== v && inner.set(v, single(renamed[n])));
  const inside = parts.map((part) => subst(part, inner, always));
  return make(ixs.map((ix) => substIx(ix, map)), renamed, inside);
}
const freshen = (t) => subst(t, new Map(), true);

/** Texts of variables and of indices, in which `names` gives names to variables. */
const nameIn = (names, v) => names.get(v) ?? v;
const varsText = (vars, names) => vars.map((v) => nameIn(names, v)).sort(compare).join("+");
const ixTexts = (ixs, names) => `[${ixs.map((ix) => `${varsText(ix.vars, names)}+${ix.shift}`)}]`;

/** A text that two terms share just if they are equal up to the names of bound variables. */
function shape(t, names = new Map(), depth = 0) {
  const { label, ixs, binders, parts } = anatomy(t);
  const own = binders.map((v, n) => [v, `#${depth + n}`]);
  const inner = own.length ? new Map([...names, ...own]) : names;
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
  constructor(rows = new Map([[ZERO, new Map([[ZERO, 0]])]])) { this.rows = rows; }
  /** The bounds that say: all these times are natural numbers. */
  static natural = (times) => new Bounds().extend(times, times.map((v) => [ZERO, v, 0]));
  /** The least c with u - v <= c, or FAR. */
  get = (u, v) => (u === v ? 0 : this.rows.get(u)?.get(v) ?? FAR);
  /** What is known of all but these times. */
  without(gone) {
    const kept = (entries) => new Map([...entries].filter(([v]) => !gone.includes(v)));
    const rows = [...kept(this.rows)].map(([u, row]) => [u, kept(row)]);
    const spoken = new Set([ZERO]); // a time of which nothing is known any more is not spoken of
    for (const [u, row] of rows) for (const v of row.keys()) if (u !== v) spoken.add(u).add(v);
    return new Bounds(new Map(rows.filter(([u]) => spoken.has(u))));
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
        for (const [w, tail] of head === FAR ? [] : rows.get(v)) { // it uses a limit just once
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
const gap = (bounds, left, right) => (
  bounds.get(nodeOf(left)[0], nodeOf(right)[0]) + left.shift - right.shift);

// ---------------------------------------------------------------- multiplying out
// A fraction is [top, bottom], BigInts in lowest terms. A monomial {coef, bound, limits, factors}
// is coef * Sum over bound, within limits, of the product of factors (Atom, App, Prod).
// Common divisors go as early as may be, so that a small fraction is joined to a large one quickly.
function gcd(a, b) {
  while (b) [a, b] = [b, a % b];
  return a < 0n ? -a : a;
}
function times([a, b], [c, d]) {
  const [g, h] = [gcd(a, d), gcd(c, b)];
  return [(a / g) * (c / h), (b / h) * (d / g)];
}
function plus([a, b], [c, d]) {
  const g = gcd(b, d);
  const top = a * (d / g) + c * (b / g);
  const h = gcd(top, g);
  return [top / h, (b / g) * (d / h)];
}
const digits = (n) => (n === 0n ? 0 : n.toString(2).replace("-", "").length);
const digitsOf = ({ coef }) => total(coef.map(digits));
const monomial = (factors, coef = [1n, 1n]) => ({ coef, bound: [], limits: [], factors });
const product = (a, b) => ({ coef: times(a.coef, b.coef), bound: [...a.bound, ...b.bound],
  limits: [...a.limits, ...b.limits], factors: [...a.factors, ...b.factors] });

const weigh = (work, more) => demand((work.weight += more) <= MAX_WEIGHT, "too much work");
/** All monomials that `make` gives for the items, refused as soon as they are too much. */
const gather = (items, make, work) => items.flatMap((item) => make(item).map((m) => {
  weigh(work, 1 + m.factors.length + digitsOf(m));
  return demand(m.bound.length <= MAX_BOUND, "a monomial binds too many variables") && m;
}));
const products = (left, right, work) => (
  gather(left, (a) => right.map((b) => product(a, b)), work));
/** The monomials of a term in which the indices of env stand for variables; all bound are new. */
function expand(t, env, work) {
  switch (t.k) {
    case "Num": return [monomial([], times([BigInt(t.top), 1n], [1n, BigInt(t.bottom)]))];
    case "Atom": case "App": case "Prod": return [monomial([subst(t, env)])];
    case "Add": return gather(t.terms, (part) => expand(part, env, work), work);
    case "Mul": return t.factors.reduce(
      (all, f) => products(all, expand(f, env, work), work), [monomial([])]);
    case "Sum": {
      const v = fresh(t.v);
      const limits = t.low ? rangeLimits(v, substIx(t.low, env), substIx(t.high, env)) : [];
      const body = expand(t.body, new Map(env).set(t.v, single(v)), work);
      return products([{ ...monomial([]), bound: [v], limits }], body, work);
    }
  }
}

// ---------------------------------------------------------------- normal form
/** How many times context and limits speak of; how many pairs of items of a list are alike. */
const spokenOf = (context, limits) => (
  new Set([ZERO, ...context.rows.keys(), ...limits.flatMap(([u, v]) => [u, v])]).size - 1);
const pairs = (list) => total(list.map((a) => list.filter((b) => a === b).length - 1));
/** Put the index `ix`, a constant or one variable plus a constant, in place of the bound time v. */
function putIn(m, v, ix) {
  const [node, shift] = nodeOf(ix);
  const move = (u) => (u === v ? [node, shift] : [u, 0]);
  const limits = m.limits.map(([u, w, c]) => {
    const [[left, a], [right, b]] = [move(u), move(w)];
    return [left, right, exact(c - a + b)];
  });
  const factors = m.factors.map((f) => subst(f, new Map([[v, ix]])));
  return { ...m, bound: m.bound.filter((w) => w !== v), limits, factors };
}

/** What the first of rules b to e that applies makes of a monomial; null if it is settled. */
function rewrite(m, bounds, peel, work) {
  const bound = m.bound.filter(isTime);
  const outer = [...bounds.rows.keys()].filter((u) => !bound.includes(u));
  const equals = [...outer.sort(compare), ...bound]; // ZERO, what is free in the whole term, others
  for (const v of bound) { // b: it must equal a constant, or another variable plus a constant
    const u = equals.find((w) => w !== v && bounds.get(v, w) + bounds.get(w, v) === 0);
    if (u !== undefined) return [putIn(m, v, nodeIx(u, bounds.get(v, u)))];
  }
  for (const v of bound) { // c: it does not begin at 0
    const c = bounds.get(ZERO, v); // -c <= v
    const w = fresh(v);
    if (c !== FAR && c !== 0) return [putIn({ ...m, bound: [...m.bound, w] }, v, nodeIx(w, -c))];
  }
  const [t, c] = peel ? nodeOf(peel) : [null, 0];
  for (const v of bound) { // d: its range reaches the peel
    const a = bounds.get(v, t);
    const below = { ...m, limits: [...m.limits, [v, t, a - 1]] };
    if (a !== FAR && a >= c) return [below, putIn(m, v, nodeIx(t, a))];
  }
  for (const [n, f] of m.factors.entries()) { // e: a product is empty, or its last factor goes out
    if (f.k !== "Prod") continue;
    const rest = { ...m, factors: m.factors.filter((_, other) => other !== n) };
    if (gap(bounds, f.high, f.low) < 0) return products([rest], [monomial([])], work);
    const [[h, shift], [l]] = [nodeOf(f.high), nodeOf(f.low)];
    if ((h !== l && (h !== t || shift < c)) || gap(bounds, f.low, f.high) > 0) continue;
    const last = subst(f.factor.body, new Map([[f.factor.binders[0], f.high]]));
    const taken = mul([prod(f.low, shifted(f.high, -1), f.factor), last]);
    return products([rest], expand(taken, new Map(), work), work);
  }
  return null;
}

// A form {terms, free} lists [coefficient, monomial], no two monomials alike. An array in it is
// {binders, form, widths}; its form calls free widths by their numbers in that list, so that arrays
// may share it. Forms, monomials and factors know their free variables.
function normalForm(t, context, peel, work = { weight: 0, done: new Map() }) {
  const [todo, found] = [expand(t, new Map(), work), new Map()];
  while (todo.length) {
    const m = todo.pop();
    const bounds = context.extend(m.bound.filter(isTime), m.limits);
    const records = total(m.factors.map(size));
    weigh(work, 1 + spokenOf(context, m.limits) ** 2 + records);
    const parts = bounds ? rewrite(m, bounds, peel, work) : []; // no integers satisfy the limits
    todo.push(...(parts ?? []));
    if (parts) continue;
    const limits = limitsToCompare({ ...m, bounds }, context);
    const before = work.weight;
    weigh(work, records + digitsOf(m) + limits.length * m.bound.length);
    const settled = withArguments({ ...m, bounds, limits }, peel, work);
    weigh(work, (work.weight - before) * pairs(m.bound.map(sortOf)));
    const text = monomialText(settled, new Map(), 0);
    found.set(text, [plus(found.get(text)?.[0] ?? [0n, 1n], m.coef), settled]);
  }
  const terms = [...found.values()].filter(([coef]) => coef[0] !== 0n);
  return { terms, free: [...new Set(terms.flatMap(([, m]) => m.free))], texts: new Map() };
}

/** A text that terms share just if they have one normal form in the context. */
const topForm = (t, context, peel) => formText(normalForm(t, context, peel), new Map(), 0);

/** A settled monomial, with the limits to compare, whose factors have normal forms as arguments. */
function withArguments(m, peel, work) {
  const factors = m.factors.map((f) => {
    const { label, ixs, parts } = anatomy(f);
    const known = parts.length && m.bounds.without(m.bound.filter((v) => !free(f).has(v)));
    const arrays = parts.map((part) => {
      const widths = [...free(part)].filter((v) => !isTime(v));
      const named = subst(part, new Map(widths.map((v, n) => [v, single(numbered(v, n))])));
      const key = shape(named) + [...known.rows].map(([u, row]) => `${u}:${[...row]};`);
      const [before, old] = [work.weight, work.done.get(key)];
      if (old) return weigh(work, old.weight) && { ...old, widths };
      const { binders, body } = freshen(named);
      const form = normalForm(body, known, peel, work);
      work.done.set(key, { binders, form, weight: work.weight - before });
      return { binders, form, widths };
    });
    const inside = arrays.flatMap(({ binders, form, widths }) => [
      ...widths.filter((v, n) => form.free.includes(numbered(v, n))),
      ...form.free.filter((v) => isTime(v) && !binders.includes(v))]);
    return { label, ixs, arrays, free: new Set([...ixs.flatMap((ix) => ix.vars), ...inside]) };
  });
  const all = [...factors.flatMap((f) => [...f.free]), ...m.limits.flatMap(([u, v]) => [u, v])];
  const outer = new Set(all.filter((v) => v !== ZERO && !m.bound.includes(v)));
  return { bound: m.bound, factors, limits: m.limits, free: [...outer] };
}

/** The limits to compare: not what context gives, and none between times that constants give. */
function limitsToCompare({ bound, bounds }, context) {
  const all = [...bounds.rows].flatMap(([u, row]) => [...row].map(([v, c]) => [u, v, c]));
  return all.filter(([u, v, c]) => {
    const inside = bound.includes(u) || bound.includes(v);
    if (u === v || (!inside && c >= context.get(u, v))) return false;
    return u === ZERO || v === ZERO || bounds.get(u, ZERO) + bounds.get(ZERO, v) > c;
  });
}

// ---------------------------------------------------------------- texts of normal forms
// Two monomials have one text just if they differ by a renaming of bound variables. `names` maps
// variables bound further out to their names; where it gives two of them one name (a colour), the
// text still does not depend on what they were called before. Names at one depth are "#depth.n".
let classes = new Map(); // of one step: monomials of the same colours, no two alike
const sortedText = (texts) => `(${texts.sort(compare).join(";")})`;

function formText({ terms, free, texts }, names, depth) {
  const key = `${depth} ${free.map((v) => nameIn(names, v))}`; // all that the text depends on
  if (texts.size > 64) texts.clear();
  const termText = ([[top, bottom], m]) => `${top}/${bottom}*${monomialText(m, names, depth)}`;
  if (!texts.has(key)) texts.set(key, sortedText(terms.map(termText)));
  return texts.get(key);
}

function factorText({ label, ixs, arrays }, names, depth) {
  const inside = arrays.map(({ binders, form, widths }) => {
    const outer = widths.map((v, n) => [numbered(v, n), nameIn(names, v)]);
    const inner = new Map([...names, ...outer, ...binders.map((v, n) => [v, `#${depth}.${n}`])]);
    return `[${binders.map(sortOf)}]${formText(form, inner, depth + 1)}`;
  });
  return `${label}${ixTexts(ixs, names)}{${inside}}`;
}
function partsText({ factors, limits }, names, depth) {
  const limitTexts = limits.map(([u, v, c]) => `${nameIn(names, u)}-${nameIn(names, v)}:${c}`);
  return sortedText(factors.map((f) => factorText(f, names, depth))) + sortedText(limitTexts);
}

/** A monomial whose bound variables are called by colours, these split as far as what they occur in
 * tells them apart; the smallest cell of variables that still share one, if any; and how to split
 * that further, one of them coming first. The order of colours is kept. */
function coloured(m, names, depth, colours) {
  const called = new Map([...names, ...m.bound.map((v) => [v, `#${depth}.${colours.get(v)}`])]);
  const cells = m.bound.map((v) => m.bound.filter((u) => colours.get(u) === colours.get(v)));
  const looks = m.bound.map((v, n) => {
    const place = `${String(colours.get(v)).padStart(4, "0")} ${sortOf(v)}`;
    if (cells[n].length === 1) return place;
    const factors = m.factors.filter((f) => f.free.has(v));
    const limits = m.limits.filter(([u, w]) => u === v || w === v);
    return place + partsText({ factors, limits }, new Map(called).set(v, `*${depth}`), depth + 1);
  });
  const recoloured = (keys) => {
    const ranks = [...new Set(keys)].sort(compare);
    return coloured(m, names, depth, new Map(m.bound.map((v, n) => [v, ranks.indexOf(keys[n])])));
  };
  if (new Set(looks).size > new Set(colours.values()).size) return recoloured(looks);
  const sorts = sortedText(m.bound.map((v) => `${called.get(v)} ${sortOf(v)}`));
  const order = (a, b) => a.length - b.length || colours.get(a[0]) - colours.get(b[0]);
  const cell = cells.filter(({ length }) => length > 1).sort(order)[0];
  const split = (v) => recoloured(m.bound.map((u, n) => `${looks[n]} ${u === v ? 1 : 2}`));
  return { text: sorts + partsText(m, called, depth + 1), cell, split };
}

/** Whether a renaming of bound variables makes one coloured monomial the other. */
function alike(a, b) {
  if (a.text !== b.text || !a.cell) return a.text === b.text;
  const first = a.split(a.cell[0]);
  return b.cell.some((v) => alike(first, b.split(v)));
}

/** A text that monomials share just if they are alike. Where colours do not name each variable, it
 * is the number of a class, which holds for one step of a proof. */
function monomialText(m, names, depth) {
  const root = coloured(m, names, depth, new Map(m.bound.map((v) => [v, 0])));
  if (!root.cell) return root.text;
  const key = sortedText(root.cell.map((v) => root.split(v).text));
  if (!classes.has(key)) classes.set(key, { number: classes.size, roots: [] });
  const { number, roots } = classes.get(key);
  const n = roots.findIndex((other) => alike(root, other));
  return `~${number}.${n < 0 ? roots.push(root) - 1 : n}`;
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
    case "Mul": return add(t.factors.map((f, n) => mul(t.factors.with(n, d(f)))));
    case "Sum": return sum(t.v, t.low, t.high, d(t.body));
    case "App": return add(t.args.flatMap((arg, k) => {
      if (!hasSymbol(arg, param)) return [];
      demand(!arg.binders.some(isTime), "no differential: the parameter is in an array over times");
      const { binders, body } = freshen(arg);
      const partial = app(t.fn, t.ix, t.args, [...t.slots, [k, binders.map(single)]]);
      return [sumOver(binders, mul([partial, d(body)]))];
    }));
    default: return refuse("no differential: the parameter is in a product over times");
  }
}

// ---------------------------------------------------------------- definitions
/** The leading times of a list of variables: at its front, two at most. */
const leading = (every) => every.slice(0, 2).filter((_, n) => every.slice(0, n + 1).every(isTime));
const contents = (d) => [d.term, d.start, d.loss, d.at].filter((t) => t);
const symbols = (d) => [d.name, d.param, ...contents(d).flatMap(atoms).map((a) => a.name)];

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
  const bound = contents(d).flatMap(boundNames);
  const variables = contents(d).flatMap((t) => [...free(t)]);
  demand(distinct(names), `two variables of one name in the definition of ${d.name}`);
  demand(!bound.some((name) => names.includes(name)), `${d.name} binds a name twice`);
  demand(variables.every((v) => d.every.includes(v)), `a free variable in ${d.name}`);
  const level = leading(d.every).length;
  if (d.k === "DefineGradient") {
    const others = block.filter((other) => other !== d).flatMap(symbols);
    const own = !seen.has(d.param) && !others.includes(d.param) && d.param !== d.name;
    demand(own && !hasSymbol(d.at, d.param), `the parameter of ${d.name} occurs elsewhere`);
    const copied = (t) => (t.factors ?? t.args ?? []).length * size(t); // of a Mul or App
    demand(total(nodes(d.loss).map(copied)) <= MAX_RECORDS, `the loss of ${d.name} is too large`);
  }
  if (!d.start) return contents(d).forEach((t) => checkDue(t, d, block, [0, level, 0]));
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
    demand(used[differ] < limit[differ], `${d.name} uses ${a.name} before it is due`);
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
  const range = t.k === "Sum" && t.low && bounds;
  const inner = range ? bounds.extend([t.v], rangeLimits(t.v, t.low, t.high)) : bounds;
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
    if (isTime(v)) return isBound(ix) && (!bounds || gap(bounds, constant(0), ix) <= 0);
    return ix.vars.length === 1 && ix.shift === 0 && sortOf(ix.vars[0]) === sortOf(v);
  };
  return every.every(allowed) && shape(subst(left, map)) === shape(a) ? map : null;
}

/** What it weighs to put a term in for the atoms of some names; it must not nest too deep. */
function putting(terms, names, right) {
  const around = terms.flatMap((t) => depths(t, names));
  const depth = depthOf(right);
  demand(around.every((n) => n + depth <= MAX_DEPTH), "what is put into terms nests too deep");
  const inside = total(terms.map((t) => scopes(t, freeTimes(...terms).length)));
  return total(terms.map(size)) + around.length * size(right) + inside;
}

const concluded = (every, left, right, hypotheses = []) => (
  { hypotheses, equation: equation(every, left, right) });
const RULES = {
  Definition(rule, _, defined) {
    const d = defined.get(rule.name) ?? refuse(`no definition of ${rule.name}`);
    if (d.k === "DefineGradient") return gradient(d, rule);
    demand(!rule.entry && (d.start || !rule.start), "no such equation in the definition");
    const r = leading(d.every).at(-1);
    const value = (ix) => subst(atom(d.name, d.every.map(single)), new Map(ix ? [[r, ix]] : []));
    if (rule.start) return concluded(d.every.filter((v) => v !== r), value(constant(0)), d.start);
    return concluded(d.every, value(d.start && shifted(single(r), 1)), d.term);
  },
  Assume: (rule) => ({ hypotheses: [rule.equation], equation: rule.equation }),
  Reflexivity: ({ every, term }) => concluded(every, term, term),
  Calculate(rule, [target, ...sources]) {
    demand(target, "a calculation without a target");
    demand(sources.length <= MAX_SOURCES, "a calculation with too many sources");
    let [side, term] = [freshen(target.equation.right), freshen(rule.term)];
    const used = { weight: 0 };
    for (const { equation: source } of sources) {
      weigh(used, putting([side, term], atoms(source.left).map((a) => a.name), source.right));
      const bounds = Bounds.natural(freeTimes(side, term));
      const right = freshen(source.right);
      const given = (a, map) => (map ? subst(right, map) : a);
      const put = (a, known) => given(a, instance(source, a, known));
      [side, term] = [side, term].map((t) => replaceAtoms(t, bounds, put));
    }
    const context = Bounds.natural(freeTimes(side, term, rule.term));
    const form = (t) => topForm(t, context, rule.peel);
    const wanted = form(side);
    demand(wanted === form(rule.term) || wanted === form(term), "the normal forms differ");
    const hypotheses = once([target, ...sources].flatMap((premise) => premise.hypotheses));
    return concluded(target.equation.every, target.equation.left, rule.term, hypotheses);
  },
  Induction({ time, predicate, pick }, premises) {
    const count = predicate.length;
    demand(pick >= 0 && pick < count && premises.length === 2 * count, "a bad pick or premises");
    demand(!predicate.some((p) => p.every.includes(time)), "the time is quantified");
    premises.forEach((premise, n) => {
      const at = n < count ? constant(0) : shifted(single(time), 1);
      const due = shape(subst(predicate[n % count], new Map([[time, at]])));
      demand(shape(premise.equation) === due, `premise ${n} is not what the induction needs`);
    });
    const assumed = predicate.map(text);
    const hypotheses = once(premises.flatMap((premise, n) => (
      premise.hypotheses.filter((h) => n < count || !assumed.includes(text(h))))));
    demand(!hypotheses.some((h) => free(h).has(time)), "a hypothesis speaks of the time");
    const { every, left, right } = predicate[pick];
    return concluded([time, ...every], left, right, hypotheses);
  },
};

/** The equation of a gradient, if the entry is one: d(loss) = Sum of entry * DIRECTION. */
function gradient(d, rule) {
  demand(!rule.start, "a gradient has no start");
  const { binders: own, body: given } = rule.entry ?? lam([], d.loss);
  const body = freshen(given); // but its own binders keep their names: they must differ from every
  const fits = `${own.map(sortOf)}` === `${d.at.binders.map(sortOf)}` && !own.some(isTime);
  demand(fits, "the entry has not the binders of the parameter");
  const ix = own.map(single);
  const moved = sumOver(own, mul([body, atom(DIRECTION, ix)]));
  const change = differential(freshen(d.loss), d.param);
  const context = Bounds.natural(freeTimes(change, moved));
  demand(topForm(change, context) === topForm(moved, context), "the entry is not the gradient");
  const at = freshen(d.at);
  demand(putting([body], [d.param], at.body) <= MAX_RECORDS, "the point is too large");
  const value = replaceAtoms(body, null, (a) => {
    if (a.name !== d.param) return a;
    demand(a.ix.length === ix.length, "the parameter has a wrong number of indices");
    return subst(at.body, new Map(at.binders.map((v, n) => [v, a.ix[n]])));
  });
  return concluded([...d.every, ...own], atom(d.name, [...d.every.map(single), ...ix]), value);
}

// ---------------------------------------------------------------- replay
function checkStep({ rule, premises, conclusion }, before, defined) {
  classes = new Map();
  demand(premises.every((n) => n >= 0 && n < before.length), "a premise that is no earlier step");
  demand(!premises.length || /^(Calculate|Induction)$/.test(rule.k), "a rule without premises");
  const made = RULES[rule.k](rule, premises.map((n) => before[n]), defined);
  checkSequent(made); // as it is: if renamed, `every` may have no name that a hypothesis has
  checkSequent(conclusion);
  const shapes = (s) => [...s.hypotheses, s.equation].map((part) => shape(part)).join("\n");
  demand(shapes(made) === shapes(conclusion), `${rule.k} does not conclude this`);
}

/** What holds of each conclusion, the rule's own and the recorded one. */
function checkSequent({ hypotheses, equation: e }) {
  const all = [...hypotheses, e];
  const speaks = (h) => e.every.some((v) => free(h).has(v));
  demand(!hypotheses.some(speaks), "a hypothesis has a quantified variable");
  demand(all.every(({ every }) => distinct(every.map(nameOf))), "two variables of one name");
  demand(all.every((part) => [...free(part)].every(isTime)), "a width is free");
}

/** Check a proof, and that it ends with the statement if one is given; the number of its steps. */
function replayProof(json, statement, where) {
  place = where;
  const { definitions, steps } = read("Proof", json, 0);
  place = `${where}, definitions`;
  const defined = admit(definitions);
  const before = [];
  for (const step of steps) {
    place = `${where}, step ${before.length}`;
    checkStep(step, before, defined);
    before.push(step.conclusion);
  }
  place = `${where}, statement`;
  const { hypotheses, equation: last } = before.at(-1);
  const proved = () => !hypotheses.length && text(read("Equation", statement, 0)) === text(last);
  demand(statement === null || proved(), "another equation is proved, or under hypotheses");
  return steps.length;
}

const FILE = { parts: Array.isArray, schema: (json) => json === 1, name: isText, expects: isText };
const PART = { proof: () => true, statement: () => true, label: isText };
/** An object whose keys are those needed, and others with values that fit. */
function checkKeys(json, needed, fits) {
  demand(json && typeof json === "object" && !Array.isArray(json), "no object where one belongs");
  demand(needed.every((key) => Object.hasOwn(json, key)), `no ${needed.join(" or ")}`);
  const known = ([key, value]) => Object.hasOwn(fits, key) && fits[key](value);
  demand(Object.entries(json).every(known), "a key that is not known, or has a bad value");
}

/** Check a file, a Proof or an object with parts; how many parts and steps it has. */
function replay(json) {
  const file = Array.isArray(json) ? { parts: [{ proof: json, statement: null }] } : json;
  checkKeys(file, ["parts"], FILE);
  demand(file.parts.length, "a file without parts");
  file.parts.forEach((part) => checkKeys(part, ["proof", "statement"], PART));
  const steps = file.parts.map(({ proof, statement, label }, n) => (
    replayProof(proof, statement, `part ${n + 1} (${label ?? ""})`)));
  return `${steps.length} parts, ${total(steps)} steps`;
}

/** "accepted" or "refused", and what to say of the text of a file. */
function verdict(source) {
  place = "file";
  try {
    return ["accepted", replay(parse(source))];
  } catch (error) {
    return ["refused", `${place}: ${error.message}`.replace(/\s+/g, " ")];
  }
}

/** Print what becomes of a file, or of each line of it; the exit code. */
function judge(path, byLines) {
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const source = utf8.decode(readFileSync(path));
    const lines = byLines ? source.replace(/\n$/, "").split("\n") : [source];
    for (const line of lines) {
      const [word, reason] = verdict(line);
      const told = word === "accepted" ? word : `${word}\t${reason}`;
      console.log(byLines ? told : `${word} ${path}: ${reason}`);
      if (!byLines && word !== "accepted") return 1;
    }
    return 0;
  } catch (error) {
    return console.error(`${path}: ${error.message}`) ?? 2;
  }
}

const byLines = process.argv[2] === "--lines";
const paths = process.argv.slice(byLines ? 3 : 2);
const plain = paths.every((path) => !path.startsWith("--"));
const fits = plain && (byLines ? paths.length === 1 : paths.length > 0);
if (!fits) console.error("usage: replay.mjs FILE [FILE...] | --lines FILE");
process.exitCode = fits ? paths.reduce((a, path) => Math.max(a, judge(path, byLines)), 0) : 2;
