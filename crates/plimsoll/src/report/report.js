// Interaction of the report: theme, tooltips, choice and download of figures, and the table of samples. The page can be
// read without it. Untrusted text is only shown as text: elements are created one by one, and no string is parsed as
// markup.
(() => {
  "use strict";

  const root = document.documentElement;
  root.classList.add("scripted");

  // Creates an element with properties and children; strings become text.
  const make = (name, properties = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in element) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  };

  // ---- Theme: the system's until the button is used.

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

  const startTheme = () => {
    const button = document.getElementById("theme");
    const name = () => {
      const other = isDark() ? "light" : "dark";
      button.textContent = other === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `Use ${other} colours`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      name();
    });
    dark.addEventListener("change", name);
    name();
  };

  // ---- Tooltips of points, cells and tokens. Without the script, figures have the browser's own (<title>).

  const tip = make("div", { className: "tip", role: "tooltip", id: "tip", hidden: true });

  // The element of the tooltip.
  let tipped = null;

  const showTip = (element) => {
    tipped = element;
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const middle = box.left + box.width / 2 - width / 2;
    const left = Math.max(8, Math.min(middle, root.clientWidth - width - 8));
    const above = box.top - height - 8;
    tip.style.transform = `translate(${left}px, ${above > 4 ? above : box.bottom + 8}px)`;
  };

  const hideTip = () => {
    tip.hidden = true;
  };

  const startTips = () => {
    document.body.append(tip);
    const follow = (event) => {
      const element = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
      if (!element) hideTip();
      else if (element !== tipped || tip.hidden) showTip(element);
    };
    document.addEventListener("pointermove", follow);
    document.addEventListener("focusin", (event) => {
      // A click focuses too, but its tooltip is already visible.
      if (event.target.matches(":focus-visible")) follow(event);
    });
    document.addEventListener("focusout", hideTip);
    // Arrow keys scroll too: the tooltip follows its element while that is hovered or has the keyboard focus.
    const reposition = () => {
      if (tip.hidden) return;
      if (tipped.matches(":hover, :focus-visible")) showTip(tipped);
      else hideTip();
    };
    document.addEventListener("scroll", reposition, { passive: true, capture: true });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hideTip();
    });
  };

  // ---- Roving focus: a group of points is one Tab stop, and arrow keys move between its points.

  const centre = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };

  // The nearest element above (-1) or below (1) another.
  const neighbour = (elements, from, direction) => {
    const [x, y] = centre(from);
    let best = null;
    let least = Infinity;
    for (const element of elements) {
      const [otherX, otherY] = centre(element);
      const away = (otherY - y) * direction;
      const distance = away + 4 * Math.abs(otherX - x);
      if (away > 0.5 && least > distance) [best, least] = [element, distance];
    }
    return best;
  };

  const startRoving = (container, elements) => {
    if (elements.length === 0) return;
    let current = elements[0];
    const enter = (element) => {
      current.tabIndex = -1;
      element.tabIndex = 0;
      current = element;
    };
    for (const element of elements) element.tabIndex = -1;
    current.tabIndex = 0;
    container.addEventListener("keydown", (event) => {
      const at = elements.indexOf(event.target);
      if (at === -1) return;
      const next = {
        ArrowRight: () => elements[at + 1],
        ArrowLeft: () => elements[at - 1],
        ArrowDown: () => neighbour(elements, elements[at], 1),
        ArrowUp: () => neighbour(elements, elements[at], -1),
        Home: () => elements[0],
        End: () => elements[elements.length - 1],
      }[event.key];
      if (!next) return;
      event.preventDefault();
      const element = next();
      if (!element) return;
      enter(element);
      element.focus();
    });
  };

  // ---- Figures.

  // A title becomes our tooltip, so that the browser's does not cover it.
  const startFigure = (svg) => {
    const points = [];
    for (const title of svg.querySelectorAll("title")) {
      const point = title.parentNode;
      point.dataset.tip = title.textContent;
      point.setAttribute("role", "img");
      point.setAttribute("aria-label", title.textContent);
      title.remove();
      points.push(point);
    }
    // Screen readers skip the parts of an image, but not those of a group.
    if (points.length > 0) svg.setAttribute("role", "group");
    startRoving(svg, points);
  };

  // Radio buttons that select one of several panels.
  const startPicker = (figure) => {
    const panels = [...figure.querySelectorAll(".panel")];
    const show = (chosen) => panels.forEach((panel, at) => { panel.hidden = at !== chosen; });
    const group = make("fieldset", { className: "picker" }, make("legend", {}, `Select a ${figure.dataset.picker}:`));
    panels.forEach((panel, at) => {
      const id = `${figure.dataset.name}-${at}`;
      const input = make("input", { type: "radio", id, name: figure.dataset.name, checked: at === 0 });
      input.addEventListener("change", () => show(at));
      const name = panel.querySelector("h3").textContent.split(/[(:]/)[0].trim();
      group.append(input, make("label", { htmlFor: id }, name));
    });
    figure.prepend(group);
    show(0);
  };

  // The margin of the figure of retained shares: a line that a pointer moves, and a slider for the keyboard.
  const startMargin = (figure) => {
    const data = JSON.parse(figure.dataset.margin);
    const svg = figure.querySelector("svg");
    const level = svg.querySelector(".level");
    const [from, to, start, end] = level.dataset.scale.split(" ").map(Number);
    const bounds = { min: 0, max: 100, step: 0.1, value: data.margin };
    const input = make("input", { type: "range", id: "margin", ...bounds });
    const shown = make("output", { htmlFor: "margin" });
    const answer = make("p", { className: "needed-answer", "aria-live": "polite" });
    const command = make("code");

    // A path as an argument of a shell.
    const isPlain = /^[\w./@:+-]+$/.test(data.adapter);
    const adapter = isPlain ? data.adapter : `'${data.adapter.replace(/'/g, "'\\''")}'`;

    const show = () => {
      const margin = Number(input.value);
      level.setAttribute("transform", `translate(0 ${start + ((margin - from) / (to - from)) * (end - start)})`);
      shown.textContent = `${margin} %`;
      input.setAttribute("aria-valuetext", `${margin} percent`);
      const first = data.cuts.findIndex((cut) => cut.low <= margin);
      const held = data.cuts[(first === -1 ? data.cuts.length : first) - 1];
      answer.textContent = held
        ? `${held.kept} of ${data.layers} layers retain ${held.share} of the gain. ${held.bytes} of ${data.bytes}.`
        : `All ${data.layers} layers are needed: no cut is shown to retain more than ${margin} %. ${data.bytes}.`;
      command.textContent = held
        ? `plimsoll trim --adapter ${adapter} --from . --margin ${margin}% --out trimmed`
        : "";
      command.parentNode.hidden = !held;
    };

    const drag = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const value = from + ((place.y - start) / (end - start)) * (to - from);
      input.value = Math.max(0, Math.min(100, value));
      show();
    };
    const grip = level.querySelector(".level-grip");
    grip.addEventListener("pointerdown", (event) => {
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => {
      if (grip.hasPointerCapture(event.pointerId)) drag(event);
    });
    input.addEventListener("input", show);
    const controls = make("div", { className: "controls" }, make("label", { htmlFor: "margin" }, "Margin"), input, shown);
    figure.prepend(controls, answer, make("pre", {}, command));
    show();
  };

  const STYLES = [
    "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "paint-order", "text-anchor",
    "font-family", "font-size", "font-weight",
  ];

  // Many SVG programs read a colour and an opacity, but not a colour with an alpha value.
  const setStyle = (element, name, value) => {
    const parts = value.match(/^rgba\((.+), ([\d.]+)\)$/);
    if (parts) {
      element.setAttribute(name, `rgb(${parts[1]})`);
      element.setAttribute(`${name}-opacity`, parts[2]);
    } else if (value && value !== "normal") {
      element.setAttribute(name, value);
    }
  };

  // A figure as a standalone file, with the styles of the page's light theme written into it.
  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const theme = root.dataset.theme;
    root.dataset.theme = "light";
    const originals = [...svg.querySelectorAll("*")];
    [...copy.querySelectorAll("*")].forEach((element, at) => {
      const style = getComputedStyle(originals[at]);
      const isText = element.localName === "text";
      for (const name of STYLES) {
        const value = style.getPropertyValue(name);
        if (isText || !/^(font|text|paint)/.test(name)) setStyle(element, name, value);
      }
      if (element.dataset.tip) {
        const title = document.createElementNS(svg.namespaceURI, "title");
        title.textContent = element.dataset.tip;
        element.append(title);
      }
      for (const name of ["class", "data-tip", "tabindex", "role", "aria-label"]) element.removeAttribute(name);
    });
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    const paper = document.createElementNS(svg.namespaceURI, "rect");
    for (const [name, value] of Object.entries({ width, height, fill: "#fff" })) paper.setAttribute(name, value);
    copy.prepend(paper);
    for (const [name, value] of Object.entries({ width, height, role: "img" })) copy.setAttribute(name, value);
    return new XMLSerializer().serializeToString(copy);
  };

  const save = (name, text) => {
    const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    const link = make("a", { href: address, download: `${name}.svg` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  const startFigures = () => {
    document.querySelectorAll("svg").forEach(startFigure);
    document.querySelectorAll("figure[data-picker]").forEach(startPicker);
    document.querySelectorAll("figure[data-margin]").forEach(startMargin);
    for (const button of document.querySelectorAll(".save")) {
      const figure = button.closest("figure");
      const panel = button.closest(".panel");
      const panels = [...figure.querySelectorAll(".panel")];
      const name = panels.length > 1 ? `${figure.dataset.name}-${panels.indexOf(panel) + 1}` : figure.dataset.name;
      button.setAttribute("aria-label", `Save the figure ${name} as an SVG file`);
      button.addEventListener("click", () => save(name, standalone(panel.querySelector("svg"))));
    }
  };

  // ---- Samples.

  const MINUS = "\u2212";
  const LIMITS = [0.05, 0.2, 0.5, 1, 2]; // nats: lower ends of the colour steps
  const PARTS = ["selection", "held out"];

  const digits = (value) => (value === null ? "\u2013" : value.toFixed(3).replace("-", MINUS));
  const signed = (value) => (value > 0 ? `+${digits(value)}` : digits(value));
  // Replaces control characters and characters that reorder text.
  const UNPRINTABLE = /[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;
  const plain = (text) => text.replace(UNPRINTABLE, (c) => (c === "\n" ? c : "\ufffd"));

  const mean = (values) => {
    const known = values.filter((value) => value !== null);
    return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length / 1000;
  };

  const colour = (change) => {
    const step = LIMITS.filter((limit) => Math.abs(change) >= limit).length;
    if (change === null || step === 0) return "heat-p0";
    return `heat-${change > 0 ? "n" : "p"}${step}`;
  };

  // The row of a sample: its means.
  const summary = (sample) => {
    const row = { sample, line: sample.l, part: sample.h, tokens: sample.x.length };
    for (const name of ["b", "f", "c"]) row[name] = mean(sample[name] || []);
    return row;
  };

  // The change of the mean from one variant to another.
  const change = (row, [from, to]) => (row[from] === null || row[to] === null ? null : row[to] - row[from]);

  // The legend of the token colours.
  const key = () => {
    const limit = LIMITS[LIMITS.length - 1];
    const box = (name) => make("i", { className: name });
    const steps = LIMITS.map((_, at) => at + 1);
    return make("p", { className: "key" },
      make("span", {}, `${MINUS}${limit} nats: more probable`),
      make("span", { className: "scale" },
        ...steps.map((step) => box(`heat-p${step}`)).reverse(), box("heat-p0"),
        ...steps.map((step) => box(`heat-n${step}`))),
      make("span", {}, `+${limit} nats: less probable (steps at ${LIMITS.join(", ")})`));
  };

  // A token that is not scored.
  const unscored = (sample, place) => {
    const text = plain(sample.t[place]);
    const hint = `${JSON.stringify(text)}\nid ${sample.i[place]}, not scored`;
    return make("span", { className: "unscored", "data-tip": hint, "aria-label": hint, role: "img" },
      text.replace(/\n/g, "\u21b5\n"));
  };

  const token = (sample, at, [from, to], names) => {
    const nats = (list) => (list && Number.isFinite(list[at]) ? list[at] / 1000 : null);
    const [before, after] = [nats(sample[from]), nats(sample[to])];
    const difference = before === null || after === null ? null : after - before;
    const text = plain(sample.t[sample.x[at]]);
    const id = sample.i.length > 0 ? `id ${sample.i[sample.x[at]]}\n` : "";
    const hint = `${JSON.stringify(text)}\n${id}${names[from]}: ${digits(before)}\n${names[to]}: ${digits(after)}\n`
      + `change: ${difference === null ? digits(null) : signed(difference)} nats`;
    return make("span", { className: colour(difference), "data-tip": hint, "aria-label": hint, role: "img" },
      text.replace(/\n/g, "\u21b5\n"));
  };

  const detail = (row, compared, names, columns) => {
    const { sample } = row;
    const answer = make("p", { className: "answer" });
    const scored = new Map(sample.x.map((place, at) => [place, at]));
    const tokens = sample.t.map((_, place) =>
      scored.has(place) ? token(sample, scored.get(place), compared, names) : unscored(sample, place));
    answer.append(...tokens);
    startRoving(answer, tokens);
    return make("tr", { className: "detail" }, make("td", { colSpan: columns },
      make("h4", {}, "The end of the prompt"),
      make("pre", { className: "prompt", tabIndex: 0 }, make("bdi", {}, plain(sample.q))),
      make("h4", {}, `The answer: ${names[compared[1]]} minus ${names[compared[0]]} (grey: not scored)`),
      answer));
  };

  const select = (label, options, picked) => {
    const input = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
    input.addEventListener("change", () => picked(input.value));
    return make("label", {}, label, input);
  };

  const buildSamples = (place) => {
    const data = JSON.parse(document.getElementById("sample-data").textContent);
    const rows = data.samples.map(summary);
    const names = { b: "base", f: "full", c: data.candidate === null ? "" : plain(data.candidate) };
    const pairs = data.candidate === null ? ["bf"] : ["fc", "bf", "bc"];
    const state = { pair: pairs[0], part: "all", by: "line", falls: false, open: new Set() };
    const columns = [
      ["line", "line", (row) => row.line],
      ["part", "part", (row) => row.part],
      ["tokens", "tokens", (row) => row.tokens],
      ["b", "base", (row) => row.b],
      ["f", "full", (row) => row.f],
      ...(data.candidate === null ? [] : [["c", names.c, (row) => row.c]]),
      ["change", "change", (row) => change(row, state.pair)],
    ];
    const body = make("tbody");
    const shown = make("span", { className: "count", "aria-live": "polite" });
    const heads = new Map();

    // Missing values come last in both directions.
    const compare = (value) => (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      return (state.falls ? b - a : a - b) || one.line - other.line;
    };

    const toggle = (row) => {
      if (!state.open.delete(row)) state.open.add(row);
    };

    const line = (row) => {
      const difference = change(row, state.pair);
      const isOpen = state.open.has(row);
      const button = make("button", { type: "button", className: "open", "aria-expanded": isOpen }, String(row.line));
      const cells = [PARTS[row.part], String(row.tokens), digits(row.b), digits(row.f)];
      if (data.candidate !== null) cells.push(digits(row.c));
      const shownChange = difference === null ? digits(null) : signed(difference);
      const last = make("td", { className: colour(difference) }, shownChange);
      const first = make("th", { scope: "row" }, button);
      const element = make("tr", {}, first, ...cells.map((cell) => make("td", {}, cell)), last);
      element.addEventListener("click", () => {
        toggle(row);
        button.setAttribute("aria-expanded", state.open.has(row));
        if (state.open.has(row)) element.after(detail(row, state.pair, names, columns.length));
        else element.nextElementSibling.remove();
      });
      return isOpen ? [element, detail(row, state.pair, names, columns.length)] : [element];
    };

    const draw = () => {
      hideTip();
      const value = columns.find(([id]) => id === state.by)[2];
      const kept = rows.filter((row) => state.part === "all" || PARTS[row.part] === state.part).sort(compare(value));
      body.replaceChildren(...kept.flatMap(line));
      shown.textContent = `${kept.length} of ${rows.length} samples`;
      for (const [id, head] of heads) {
        if (id === state.by) head.setAttribute("aria-sort", state.falls ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
    };

    const sortBy = (id) => {
      state.falls = id === state.by && !state.falls;
      state.by = id;
      draw();
    };

    for (const [id, text] of columns) {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => sortBy(id));
      heads.set(id, make("th", { scope: "col" }, button));
    }
    const parts = [["all", "all"], ...PARTS.map((part) => [part, part])];
    const controls = make("div", { className: "controls" },
      select("Samples", parts, (part) => { state.part = part; draw(); }));
    if (pairs.length > 1) {
      const options = pairs.map((pair) => [pair, `${names[pair[1]]} minus ${names[pair[0]]}`]);
      controls.append(select("Change", options, (pair) => { state.pair = pair; draw(); }));
    }
    controls.append(shown);
    const caption = make("caption", {},
      "Mean negative log-likelihood of each answer's tokens. A change below 0 is better.");
    const head = make("thead", {}, make("tr", {}, ...heads.values()));
    const table = make("table", { className: "samples" }, caption, head, body);
    const region = { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Samples" };
    place.append(controls, key(), make("div", region, table));
    draw();
  };

  // Hundreds of samples cost time and memory: the table is built when it is near the viewport, or for printing.
  const startSamples = () => {
    const place = document.getElementById("sample-table");
    if (!place) return;
    let isBuilt = false;
    const build = () => {
      if (isBuilt) return;
      isBuilt = true;
      watcher.disconnect();
      buildSamples(place);
    };
    const watcher = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) build();
    }, { rootMargin: "800px" });
    watcher.observe(place);
    addEventListener("beforeprint", build);
  };

  startTheme();
  startTips();
  startFigures();
  startSamples();
})();
