// The verdicts of a report: filter, sort, pages, and on opening a row the trace behind it.
// Every text goes into the page as text (never as markup), and nothing is built before somebody looks at it.
"use strict";
(() => {
  const PAGE = 100;
  const KINDS = {
    pass: ["✓", "passed"],
    fail: ["✗", "failed"],
    error: ["!", "error"],
    value: ["•", "other value"],
    none: ["–", "no value"],
    skipped: ["–", "not scored"],
  };
  const COLUMNS = ["Trace", "Feedback", "Verdict", "Why"];

  const read = (kind) =>
    [...document.querySelectorAll(`script[data-of="${kind}"]`)].flatMap((node) => JSON.parse(node.textContent));
  const names = read("names");
  const subjects = read("subjects").map(([name, id, reason, complete, preview]) => ({ name, id, reason, complete, preview }));
  const rows = read("rows").map(([subject, name, place, kind, verdict, number, why, span, outcome], index) => {
    return { index, subject: subjects[subject], number: subject, name, place, kind, verdict, value: number, why, span, outcome };
  });

  // Elements. `make("td.why", {title: "x"}, "text", child)`
  function make(what, properties, ...children) {
    const [tag, ...classes] = what.split(".");
    const node = document.createElement(tag);
    if (classes.length) node.className = classes.join(" ");
    for (const [key, value] of Object.entries(properties ?? {})) {
      if (value === undefined || value === null) continue;
      if (key in node && !key.startsWith("aria")) node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  const label = (row) => {
    const [name, scorer] = names[row.name];
    return name === scorer ? name : `${name} (${scorer})`;
  };

  function duration(nanoseconds) {
    for (const [size, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "us"]]) {
      if (nanoseconds >= size) return `${Number((nanoseconds / size).toPrecision(3))} ${unit}`;
    }
    return `${nanoseconds} ns`;
  }

  // What is shown: `found` are the rows that pass the filters, in order; `page` counts from 0; one row may be open.
  const filters = { text: "", name: "", kind: "", reason: "", trouble: false };
  const sorting = { column: null, up: true };
  let found = rows;
  let page = 0;
  let opened = null;

  function matches(row) {
    if (filters.name !== "" && row.name !== Number(filters.name)) return false;
    if (filters.kind && row.kind !== filters.kind) return false;
    if (filters.reason && (row.subject.reason ?? "") !== filters.reason) return false;
    if (filters.trouble && row.kind !== "error") return false;
    if (!filters.text) return true;
    row.text ??= [row.subject.name, row.subject.preview, row.subject.id, row.span, label(row), row.verdict, row.why, row.outcome].join("\n").toLowerCase();
    return filters.text.split(/\s+/).every((word) => row.text.includes(word));
  }

  const collator = new Intl.Collator("en", { numeric: true });
  const keys = {
    Trace: (row) => row.subject.name + "\n" + (row.subject.id ?? ""),
    Feedback: label,
    Verdict: (row) => (row.value === null ? row.verdict : row.value),
    Why: (row) => row.why,
  };

  function compare(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if (typeof one === "number") return -1;
    if (typeof other === "number") return 1;
    return collator.compare(one, other);
  }

  function select() {
    found = rows.filter(matches);
    if (sorting.column) {
      const key = keys[sorting.column];
      const keyed = found.map((row) => [key(row), row]);
      keyed.sort((one, other) => (sorting.up ? 1 : -1) * compare(one[0], other[0]) || one[1].index - other[1].index);
      found = keyed.map((each) => each[1]);
    }
    page = 0;
    opened = null;
    draw();
  }

  // The parts of the page that stay.
  const body = make("tbody");
  const status = make("p.count", { role: "status" });
  const pager = make("nav.pager", { "aria-label": "Pages of verdicts" });
  const heads = COLUMNS.map((column) => {
    const button = make("button", { type: "button", onclick: () => sort(column) }, column);
    return make("th", { scope: "col", "aria-sort": "none" }, button);
  });
  const table = make("table.rows", {}, make("caption.hidden", {}, "Verdicts; a row opens with its button"),
    make("thead", {}, make("tr", {}, make("th.mark", { scope: "col" }, make("span.hidden", {}, "Open")), ...heads)), body);

  function sort(column) {
    if (sorting.column !== column) Object.assign(sorting, { column, up: true });
    else if (sorting.up) sorting.up = false;
    else sorting.column = null;
    COLUMNS.forEach((each, index) => {
      const state = each !== sorting.column ? "none" : sorting.up ? "ascending" : "descending";
      heads[index].setAttribute("aria-sort", state);
    });
    select();
  }

  function choice(name, text, options) {
    const input = make("select", { onchange: (event) => { filters[name] = event.target.value; select(); } },
      make("option", { value: "" }, "all"), ...options.map(([value, shown]) => make("option", { value }, shown)));
    return make("label", {}, make("span", {}, text), input);
  }

  function toolbar() {
    const reasons = [...new Set(subjects.map((subject) => subject.reason ?? ""))].filter(Boolean).sort();
    const kinds = Object.keys(KINDS).filter((kind) => rows.some((row) => row.kind === kind));
    let timer = 0;
    const search = make("input", { type: "search", placeholder: "name, question, id, verdict or why", oninput: (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => { filters.text = event.target.value.trim().toLowerCase(); select(); }, rows.length > 2000 ? 200 : 0);
    } });
    const trouble = make("input", { type: "checkbox", onchange: (event) => { filters.trouble = event.target.checked; select(); } });
    return make("form.filters", { role: "search", "aria-label": "Verdicts", onsubmit: (event) => event.preventDefault() },
      make("label.grow", {}, make("span", {}, "Search"), search),
      choice("name", "Feedback", names.map((_, index) => [String(index), label({ name: index })])),
      choice("kind", "Verdict", kinds.map((kind) => [kind, KINDS[kind][1]])),
      reasons.length ? choice("reason", "Close reason", reasons.map((reason) => [reason, reason])) : null,
      make("label.check", {}, trouble, make("span", {}, "Errors only")),
      make("button", { type: "reset", onclick: (event) => { event.target.form.reset(); Object.assign(filters, { text: "", name: "", kind: "", reason: "", trouble: false }); select(); } }, "Clear"));
  }

  function draw() {
    const first = page * PAGE;
    const shown = found.slice(first, first + PAGE);
    body.replaceChildren(...shown.flatMap((row, index) => line(row, shown[index - 1])));
    if (!shown.length) body.append(make("tr", {}, make("td.empty", { colSpan: COLUMNS.length + 1 }, "Nothing matches.")));
    status.textContent = found.length
      ? `${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")} of ${found.length.toLocaleString("en")}` +
        (found.length === rows.length ? "" : ` (${rows.length.toLocaleString("en")} in all)`)
      : `0 of ${rows.length.toLocaleString("en")}`;
    const last = Math.ceil(found.length / PAGE) - 1;
    const go = (to, text) => make("button", { type: "button", disabled: to < 0 || to > last || to === page, onclick: () => turn(to) }, text);
    pager.replaceChildren(...(last > 0
      ? [go(0, "First"), go(page - 1, "Previous"), make("span", {}, `Page ${page + 1} of ${last + 1}`), go(page + 1, "Next"), go(last, "Last")]
      : []));
  }

  function turn(to) {
    page = to;
    opened = null;
    draw();
    table.scrollIntoView({ block: "start" });
    body.querySelector("button")?.focus({ preventScroll: true });
  }

  const verdictOf = (kind, text) => make(`span.verdict.${kind}`, {},
    make("span", { "aria-hidden": "true" }, KINDS[kind][0] + " "), make("bdi", {}, text),
    kind === "pass" || kind === "fail" ? make("span.hidden", {}, `, ${KINDS[kind][1]}`) : null);

  function line(row, before) {
    const isOpen = opened === row;
    const name = `${row.subject.name || row.subject.id || "row"}: ${label(row)}, ${row.verdict}`;
    const button = make("button.open", { type: "button", "aria-expanded": String(isOpen), "aria-label": name, onclick: () => toggle(row) }, "▸");
    // What is told once need not be told again below.
    const same = before !== undefined && before.number === row.number && before !== opened;
    const ids = row.subject.id && !(same && before.span === row.span) ? make("code", {}, row.subject.id + (row.span ? "/" + row.span : "")) : null;
    const node = make(`tr.row${isOpen ? ".is-open" : ""}`, {
      id: `r${row.index}`,
      onclick: (event) => { if (!event.target.closest("button") && !String(getSelection())) toggle(row); },
    },
      make("td.mark", {}, button),
      make(`td.trace${same ? ".same" : ""}`, {}, make("bdi", {}, row.subject.name || "(no name)"), row.subject.complete || same ? null : make("span.tag", {}, "incomplete"),
        row.subject.preview && !same ? make("div.preview", { dir: "auto" }, row.subject.preview) : null, ids),
      make("td", {}, make("bdi", {}, label(row))),
      make("td", {}, verdictOf(row.kind, row.verdict)),
      make("td.why", {}, make("bdi", {}, row.why)));
    if (!isOpen) return [node];
    const panel = make("td", { colSpan: COLUMNS.length + 1 }, details(row));
    return [node, make("tr.details", {}, panel)];
  }

  function toggle(row) {
    opened = opened === row ? null : row;
    // What `#r12` in an address opens. Opening more rows is nothing to go back to.
    history.replaceState(null, "", opened ? `#r${row.index}` : location.pathname + location.search);
    draw();
    document.querySelector(`#r${row.index} button`)?.focus({ preventScroll: true });
  }

  document.addEventListener("keydown", (event) => {
    const at = event.target.closest?.("tr.row");
    if (event.key === "Escape" && opened && event.target.closest("tr.row, tr.details")) toggle(opened);
    if (!at || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    const buttons = [...body.querySelectorAll("button.open")];
    const next = buttons[buttons.indexOf(at.querySelector("button.open")) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { event.preventDefault(); next.focus(); }
  });

  // An opened row.
  function details(row) {
    const source = document.getElementById(`s${row.number}`);
    if (!source) return make("div.panel", {}, make("p.note", {}, "The trace is not on this page: it holds those with failures and errors first, up to a limit."));
    const told = JSON.parse(source.textContent);
    const panel = make("div.panel");
    panel.append(judged(row, told.verdicts[row.place]), ...others(row, told));
    if (told.problem) panel.append(make("p.note", {}, told.problem));
    const values = [["Inputs", told.inputs], ["Outputs", told.outputs], ["Expectations", told.expectations]].filter(([, text]) => text !== undefined);
    if (values.length) panel.append(make("div.values", {}, ...values.map(([name, text]) => block(name, text))));
    if (told.trace) panel.append(waterfall(told.trace, row));
    if (told.tools?.length) panel.append(toolCalls(told.tools));
    return panel;
  }

  const block = (name, text) => make("section.block", {}, make("h4", {}, name), make("pre", { tabIndex: 0, dir: "auto", "aria-label": name }, text));

  function facts(pairs) {
    const list = make("dl.facts");
    for (const [key, value] of pairs) list.append(make("dt", {}, make("bdi", {}, key)), make("dd", { dir: "auto" }, value));
    return list;
  }

  function judged(row, verdict) {
    const node = make("section.judged", {}, make("h3", {}, make("bdi", {}, label(row)), " ", verdictOf(row.kind, row.verdict)));
    if (!verdict) return node;
    const pairs = [];
    if (verdict.value !== undefined && verdict.value.length > 200) pairs.push(["value", verdict.value]);
    if (row.outcome !== "scored") pairs.push(["decision", row.outcome]);
    if (verdict.source) pairs.push(["source", verdict.source]);
    if (row.subject.reason) pairs.push(["trace closed by", row.subject.reason + (row.subject.complete ? "" : ", incomplete")]);
    if (verdict.revision) pairs.push(["revision", String(verdict.revision)]);
    pairs.push(...Object.entries(verdict.metadata ?? {}));
    if (verdict.why) node.append(make("p.rationale", { dir: "auto" }, verdict.why));
    if (verdict.stack) node.append(make("details", { open: true }, make("summary", {}, "Stack trace"), make("pre.stack", { tabIndex: 0, "aria-label": "Stack trace" }, verdict.stack)));
    if (pairs.length) node.append(facts(pairs));
    return node;
  }

  function others(row, told) {
    const same = rows.filter((each) => each.number === row.number && each !== row);
    if (!same.length || told.verdicts.length > PAGE) return [];
    const chips = same.map((each) => make("li", {}, make("button", { type: "button", onclick: () => show(each) }, make("bdi", {}, label(each)), " ", verdictOf(each.kind, each.verdict))));
    return [make("section.others", {}, make("h4", {}, "Other verdicts on it"), make("ul", {}, ...chips))];
  }

  function show(row) {
    if (!found.includes(row)) { document.querySelector("form.filters button[type=reset]").click(); }
    page = Math.floor(found.indexOf(row) / PAGE);
    opened = null;
    toggle(row);
    document.getElementById(`r${row.index}`).scrollIntoView({ block: "nearest" });
  }

  // Spans as a tree with bars on one time axis; what is selected is told beside it.
  function waterfall(trace, row) {
    const total = Math.max(trace.duration, 1);
    const told = make("div.span-details", { role: "region", "aria-label": "Span" });
    const closed = new Set();
    const items = trace.spans.map((span, index) => {
      const bar = make(`span.bar${span.error === undefined ? "" : ".error"}`);
      // Clocks of different machines disagree: a bar stays on its axis whatever its times say.
      const from = Math.min(Math.max(span.start / total, 0), 1);
      const size = Math.min(Math.max(span.duration / total, 0), 1 - from);
      bar.style.left = `${Math.min(from * 100, 99.5)}%`;
      bar.style.width = `${Math.max(size * 100, 0.5)}%`;
      const name = make("span.name", {}, make("span.caret", { "aria-hidden": "true" }), make("bdi", {}, span.name));
      name.style.paddingInlineStart = `${Math.min(span.depth, 40) * 14}px`;
      const parent = trace.spans[index + 1]?.depth > span.depth;
      return make(`div.span${parent ? ".parent" : ""}`, {
        role: "treeitem", tabIndex: -1, "aria-level": span.depth + 1, "aria-selected": "false",
        "aria-expanded": parent ? "true" : null,
        onclick: (event) => { if (event.target.closest(".caret")) fold(index); choose(index); },
      },
        name, " ", make(`span.type.t-${span.type.replace(/\W/g, "")}`, {}, span.type), " ", make("span.axis", {}, bar),
        make("span.time", {}, duration(span.duration)), " ",
        span.error === undefined ? null : make("span.state", { title: span.error || "error" }, "✗", make("span.hidden", {}, " error")));
    });
    const visible = () => items.filter((item) => !item.hidden);

    function fold(index, close = !closed.has(index)) {
      if (!items[index].classList.contains("parent")) return;
      if (close) closed.add(index); else closed.delete(index);
      items[index].setAttribute("aria-expanded", String(!close));
      let hidden = Infinity;
      trace.spans.forEach((span, place) => {
        if (span.depth <= hidden) hidden = Infinity;
        items[place].hidden = hidden !== Infinity;
        if (hidden === Infinity && closed.has(place)) hidden = span.depth;
      });
    }

    function choose(index, focus = true) {
      items.forEach((item, place) => { item.tabIndex = place === index ? 0 : -1; item.setAttribute("aria-selected", String(place === index)); });
      if (focus) items[index].focus({ preventScroll: false });
      told.replaceChildren(...spanDetails(trace.spans[index], trace));
    }

    function onkeydown(event) {
      const shown = visible();
      const at = items.indexOf(event.target);
      if (at < 0) return;
      const place = shown.indexOf(items[at]);
      const parent = () => { for (let up = at - 1; up >= 0; up--) if (trace.spans[up].depth < trace.spans[at].depth) return up; return at; };
      const moves = {
        ArrowDown: () => shown[place + 1], ArrowUp: () => shown[place - 1], Home: () => shown[0], End: () => shown.at(-1),
        ArrowRight: () => (closed.has(at) ? fold(at, false) : shown[place + 1]),
        ArrowLeft: () => (items[at].classList.contains("parent") && !closed.has(at) ? fold(at, true) : items[parent()]),
        Enter: () => fold(at),
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      const next = move();
      if (next) choose(items.indexOf(next));
    }

    const tree = make("div.tree", { role: "tree", "aria-label": "Spans", onkeydown }, ...items);
    const head = [trace.service, trace.dialects.join(", "), trace.model, trace.tokens && `${trace.tokens.map((count) => count ?? "?").join(" + ")} tokens`,
      duration(trace.duration), trace.begin > 0 && trace.begin < 8.64e15 ? new Date(trace.begin).toISOString().replace("T", " ").replace("Z", " UTC") : ""].filter(Boolean);
    const node = make("section.trace-view", {}, make("h4", {}, "Trace"), make("p.head", {}, head.join(" · ")), make("div.split", {}, tree, told));
    if (trace.more) node.append(make("p.note", {}, `${trace.more.toLocaleString("en")} more spans are not on this page.`));
    if (items.length) choose(Math.max(0, trace.spans.findIndex((span) => span.id === row.span)), false);
    return node;
  }

  function spanDetails(span, trace) {
    const out = [make("h5", {}, make("bdi", {}, span.name)), make("p.head", {}, `${span.type} · ${duration(span.duration)}, ${duration(Math.max(span.start, 0))} after the first · `, make("code", {}, span.id))];
    if (span.error !== undefined) out.push(make("p.error-text", { dir: "auto" }, `✗ ${span.error || "error"}`));
    for (const [name, key] of [["Inputs", "inputs"], ["Outputs", "outputs"]]) if (span[key] !== undefined) out.push(block(name, span[key]));
    for (const event of span.events ?? []) {
      out.push(make("section.block", {}, make("h4", {}, `Event: ${event.name}`, make("span.dim", {}, ` at ${duration(Math.max(event.at, 0))}`)),
        facts(Object.entries(event.attributes)), event.stack ? make("pre.stack", { tabIndex: 0, "aria-label": "Stack trace" }, event.stack) : null));
    }
    const attributes = Object.entries(span.attributes ?? {});
    if (attributes.length) out.push(make("details", {}, make("summary", {}, `Attributes (${attributes.length})`), facts(attributes)));
    return out;
  }

  function toolCalls(calls) {
    const lines = calls.map((call) => make("tr", {},
      make("th", { scope: "row" }, make("bdi", {}, call.name), call.failed ? make("span.verdict.error", {}, " ✗ failed") : null),
      make("td", {}, make("pre", { tabIndex: 0, dir: "auto", "aria-label": `Arguments of ${call.name}` }, call.arguments ?? "")),
      make("td", {}, make("pre", { tabIndex: 0, dir: "auto", "aria-label": `Result of ${call.name}` }, call.result ?? ""))));
    const head = make("tr", {}, ...["Tool", "Arguments", "Result"].map((text) => make("th", { scope: "col" }, text)));
    return make("section", {}, make("h4", {}, "Tool calls"), make("table.tools", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  // A name in the summary leads to its verdicts.
  for (const head of document.querySelectorAll("th[data-name]")) {
    const shown = head.textContent;
    head.replaceChildren(make("button", { type: "button", title: "Show its verdicts", onclick: () => {
      const input = document.querySelector("form.filters select");
      input.value = filters.name = head.dataset.name;
      select();
      input.closest("form").scrollIntoView({ block: "start" });
      input.focus({ preventScroll: true });
    } }, shown));
  }

  if (rows.length) document.getElementById("app").append(toolbar(), status, table, pager);
  else document.getElementById("app").append(make("p", {}, "No verdicts."));
  draw();
  const wanted = rows[Number(/^#r(\d+)$/.exec(location.hash)?.[1])];
  if (wanted) show(wanted);
})();
