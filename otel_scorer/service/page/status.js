// Asks for the sidecar's state every two seconds and changes in the page only what has changed, so that nothing flickers,
// what is open stays open, and a selection stays selected. Every text goes into the page as text, never as markup.
"use strict";
(() => {
  const INTERVAL = 2000;
  const MARKS = { pass: "✓", fail: "✗", error: "!", value: "•", none: "–", skipped: "–" };
  const SAID = { pass: "passed", fail: "failed", error: "error", value: "", none: "no value", skipped: "not scored" };
  const at = (id) => document.getElementById(id);

  function make(what, text) {
    const [tag, ...classes] = what.split(".");
    const node = document.createElement(tag);
    if (classes.length) node.className = classes.join(" ");
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }
  function hide(node, hidden) {
    if (node.hidden !== hidden) node.hidden = hidden;
  }
  // Keeps the children of `parent` in step with `items`: `[key, value]`. What has a key already is changed, not made anew.
  function keep(parent, items, create, change) {
    const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
    let place = parent.firstElementChild;
    for (const [key, value] of items) {
      let node = known.get(key);
      if (node === undefined) {
        node = create(value);
        node.dataset.key = key;
      }
      known.delete(key);
      change(node, value);
      if (node === place) place = place.nextElementSibling;
      else parent.insertBefore(node, place);
    }
    for (const node of known.values()) node.remove();
  }
  const number = (value) => value.toLocaleString("en");
  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB"];
    let unit = 0;
    for (; value >= 1024 && unit < 3; unit++) value /= 1024;
    return `${unit ? value.toPrecision(3) : value} ${units[unit]}`;
  }
  function seconds(value) {
    for (const [size, unit] of [[1, "s"], [1e-3, "ms"]]) if (value >= size) return `${Number((value / size).toPrecision(3))} ${unit}`;
    return `${Math.round(value * 1e6)} us`;
  }
  function span(value) {
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (value >= size) return `${Math.floor(value / size)} ${unit}`;
    return `${Math.floor(value)} s`;
  }

  // A table of which rows and cells stay: `rows` are `[key, [cell, ...]]`; a cell is a text, or [text, class].
  function table(parent, headings, rows) {
    let body = parent.querySelector("tbody");
    const heads = JSON.stringify(headings);
    if (parent.dataset.heads !== heads) {
      parent.dataset.heads = heads;
      const made = make("table");
      const row = make("tr");
      for (const text of headings) {
        const head = make(typeof text === "string" ? "th" : "th.number", typeof text === "string" ? text : text[0]);
        head.scope = "col";
        row.append(head);
      }
      const head = make("thead");
      head.append(row);
      body = make("tbody");
      made.append(head, body);
      parent.replaceChildren(made);
    }
    keep(body, rows, () => make("tr"), (row, cells) => {
      cells.forEach((cell, index) => {
        const [text, style] = typeof cell === "string" ? [cell, ""] : cell;
        let node = row.children[index];
        if (node === undefined) {
          node = make(index ? "td" : "th");
          if (!index) node.scope = "row";
          row.append(node);
        }
        if (node.className !== style) node.className = style;
        say(node, text);
      });
      while (row.children.length > cells.length) row.lastElementChild.remove();
    });
  }

  const sum = (data, name, wanted = {}) =>
    data.counters.filter(([found, by]) => found === name && Object.entries(wanted).every(([key, value]) => by[key] === value))
      .reduce((total, [, , value]) => total + value, 0);
  const gauge = (data, name) => data.gauges.filter(([found]) => found === name).reduce((total, [, , value]) => total + value, 0);

  function tiles(data) {
    const lost = data.counters.filter(([name]) => /(^|[._])dropped$/.test(name)).reduce((total, [, , value]) => total + value, 0);
    const found = [
      ["Spans taken", number(sum(data, "receiver.spans_accepted"))],
      ["Open traces", number(gauge(data, "assembler.open_traces"))],
      ["In memory", bytes(gauge(data, "assembler.open_size"))],
      ["Being scored", number(gauge(data, "scoring.open_traces"))],
      ["Verdicts sent", number(sum(data, "forwarder.sent", { lane: "scores" }))],
      ["Dropped", number(lost), lost > 0],
    ];
    keep(at("tiles"), found.map((each) => [each[0], each]), ([name]) => {
      const node = make("div");
      node.append(make("dt", name), make("dd"));
      return node;
    }, (node, [, value, bad]) => {
      node.classList.toggle("bad", Boolean(bad));
      say(node.lastElementChild, value);
    });
  }

  function decisions(data) {
    const by = new Map();
    const outcomes = new Set();
    for (const [name, { scorer, outcome }, total] of data.counters) {
      if (name !== "scoring.decisions") continue;
      outcomes.add(outcome);
      if (!by.has(scorer)) by.set(scorer, new Map());
      by.get(scorer).set(outcome, total);
    }
    const order = ["scored", "failed", "timed_out", "not_applicable", "filtered", "not_sampled", "filter_error", "shed", "unprocessable"];
    const columns = order.filter((each) => outcomes.has(each));
    const bad = new Set(["failed", "timed_out", "filter_error", "shed", "unprocessable"]);
    const rows = [...by].map(([scorer, totals]) => {
      const timings = data.timings.filter(([name, each]) => name === "scoring.duration" && each.scorer === scorer);
      const calls = timings.reduce((total, each) => total + each[2], 0);
      const took = timings.reduce((total, each) => total + each[3], 0);
      const cells = columns.map((each) => [number(totals.get(each) ?? 0), totals.get(each) && bad.has(each) ? "number fail" : "number"]);
      return [scorer, [scorer, ...cells, [calls ? seconds(took / calls) : "–", "number"]]];
    });
    hide(at("no-decisions"), rows.length > 0);
    hide(at("decisions"), rows.length === 0);
    table(at("decisions"), ["scorer", ...columns.map((each) => [each.replaceAll("_", " ")]), ["mean time"]], rows);
  }

  function queues(data) {
    const places = new Map();
    for (const [name, { destination, lane }, value] of data.gauges) {
      if (!name.startsWith("forwarder.queue_")) continue;
      const key = `${destination} ${lane}`;
      if (!places.has(key)) places.set(key, { destination, lane });
      places.get(key)[name.slice("forwarder.queue_".length)] = value;
    }
    const rows = [...places].map(([key, place]) => {
      const lost = (name) => sum(data, name, { destination: place.destination, lane: place.lane });
      const share = place.capacity ? place.size / place.capacity : 0;
      const cell = (value, bad) => [number(value), value && bad ? "number fail" : "number"];
      return [key, [
        place.destination, place.lane,
        [`${bytes(place.size)} (${Math.round(share * 100)} %)`, share > 0.8 ? "number fail" : "number"],
        cell(lost("forwarder.sent")), cell(lost("forwarder.retries")),
        cell(lost("forwarder.rejected"), true), cell(lost("forwarder.dropped"), true),
      ]];
    });
    table(at("queues"), ["destination", "what", ["waiting"], ["sent"], ["retries"], ["rejected"], ["dropped"]], rows);
  }

  function traces(data) {
    hide(at("no-traces"), data.traces.length > 0);
    keep(at("traces"), data.traces.map((each) => [`${each.trace_id} ${each.revision} ${each.at}`, each]), (trace) => {
      const node = make("details");
      const summary = make("summary");
      const when = make("span.dim", new Date(trace.at * 1000).toLocaleTimeString("en-GB"));
      const name = make("span", trace.name ?? trace.trace_id);
      if (trace.service) name.append(" ", make("span.dim", trace.service));
      const chips = make("span.chips");
      for (const verdict of trace.verdicts) {
        const chip = make(`span.chip.${verdict.kind}`, `${MARKS[verdict.kind]} ${verdict.name} ${verdict.value}`);
        if (SAID[verdict.kind]) chip.append(make("span.hidden", `, ${SAID[verdict.kind]}`));
        chips.append(chip);
      }
      summary.append(when, name, make("span.dim.took", trace.seconds === null ? "" : seconds(trace.seconds)), chips);
      const panel = make("div.panel");
      const facts = `${number(trace.spans)} ${trace.spans === 1 ? "span" : "spans"}, closed by ${trace.close_reason}, ${trace.complete ? "complete" : "incomplete"}` +
        (trace.revision > 1 ? `, revision ${trace.revision}` : "");
      const about = make("p.note", facts + " ");
      about.append(make("code", trace.trace_id));
      const why = make("div.wide");
      table(why, ["verdict", "value", "why", ["took"]], trace.verdicts.map((verdict, index) => [String(index), [
        verdict.name === verdict.scorer ? verdict.name : `${verdict.name} (${verdict.scorer})`,
        [`${MARKS[verdict.kind]} ${verdict.value}`, `verdict ${verdict.kind}`],
        [verdict.why + (verdict.span_id ? `\nspan ${verdict.span_id}` : ""), "reason"],
        [verdict.seconds === null ? "" : seconds(verdict.seconds), "number"],
      ]]));
      panel.append(about, why);
      if (trace.more) panel.append(make("p.note", `${number(trace.more)} more are not shown`));
      node.append(summary, panel);
      return node;
    }, () => {});
  }

  function show(data) {
    say(at("phase"), data.phase);
    at("phase").className = data.phase;
    say(at("about"), `version ${data.version}, up ${span(data.up)}, ${Object.entries(data.bound).map((each) => each.join(" ")).join(", ")}`);
    tiles(data);
    traces(data);
    decisions(data);
    queues(data);
    table(at("counters"), ["counter", "by", ["total"]], data.counters.map(([name, by, total]) => {
      const label = Object.entries(by).map((each) => each.join("=")).join(", ");
      return [`${name} ${label}`, [name, label, [number(total), "number"]]];
    }));
    say(at("settings"), data.settings);
  }

  async function look() {
    try {
      const answer = await fetch("status.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the sidecar answered ${answer.status}`);
      show(await answer.json());
      hide(at("problem"), true);
    } catch (problem) {
      say(at("problem"), `What is shown is old: ${problem.message}`);
      hide(at("problem"), false);
    }
    document.documentElement.dataset.looks = String(Number(document.documentElement.dataset.looks ?? 0) + 1);
  }
  async function follow() {
    if (at("live").checked && !document.hidden) await look();
    setTimeout(follow, INTERVAL);
  }
  at("live").addEventListener("change", () => at("live").checked && look());
  document.addEventListener("visibilitychange", () => !document.hidden && at("live").checked && look());
  follow();
})();
