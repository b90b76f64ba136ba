// What pages can do beyond being read: search, keys, sorting, comparing, copying. Every page is whole without it.
// A classic script: from a file, browsers load no modules and fetch nothing.
"use strict";
(() => {
  /** @typedef {{label: string, kind: string, href: string, weight: number}} Hit */
  /** @typedef {[number, string, number, number, string, number | null, number, number, number | null, number | null]} Row
   *  unit, class, maximum, share active, best class, its AUC, findings as bits, place by similarity, x, y */

  const root = document.body.dataset.root || "";
  const kind = document.body.dataset.kind || "";
  const MOST = 12;

  /**
   * @param {string} selector
   * @returns {HTMLElement | null}
   */
  const find = (selector) => document.querySelector(selector);

  /**
   * An element with text and attributes.
   * @param {string} name
   * @param {Record<string, string>} attributes
   * @param {string} text
   */
  function element(name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  // ------------------------------------------------------------------------------------------------ the state in the address

  /** What stands behind # in the address, as KEY=VALUE&... */
  const state = {
    read: () => new URLSearchParams(location.hash.slice(1)),
    /** @param {Record<string, string>} values */
    write(values) {
      const kept = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
      const text = kept.toString();
      if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
    },
  };

  // ------------------------------------------------------------------------------------------------------------------ search

  /** @type {{layers: [string, string, [number, number][]][], classes: [number, string][], images: [number, string, string][],
   *  labels: [number, string][]} | null} */
  let known = null;

  /** Loads what search looks in, once. @param {() => void} then */
  function load(then) {
    if (known) return then();
    const script = element("script", { src: `${root}search.js` });
    script.addEventListener("load", () => {
      known = /** @type {any} */ (window).atlasSearch;
      then();
    });
    document.head.append(script);
  }

  /** @param {string} text @param {string} word how well a name fits: 0 not at all */
  function fit(text, word) {
    const at = text.toLowerCase().indexOf(word);
    if (at < 0) return 0;
    if (text.length === word.length) return 4;
    return at === 0 ? 3 : /[^a-z0-9]/i.test(text[at - 1]) ? 2 : 1;
  }

  /** How well a layer fits: all words, a whole part between dots best. @param {string} name @param {string[]} words */
  function fitLayer(name, words) {
    const parts = name.toLowerCase().split(/[._:/]/);
    return words.reduce((sum, word) => {
      const one = parts.includes(word) ? 3 : fit(name, word);
      return sum < 0 || !one ? -1 : sum + one;
    }, 0);
  }

  /**
   * What a text finds: "12 265" is unit 265 of the layers with 12 in their name, "265" that of this layer.
   * @param {string} text
   * @returns {Hit[]}
   */
  function search(text) {
    const query = text.trim().toLowerCase();
    if (!query || !known) return [];
    const words = query.split(/\s+/);
    const last = words[words.length - 1];
    /** @type {Hit[]} */
    const hits = [];
    const here = document.body.dataset.layer || "";
    if (/^\d+$/.test(last)) {
      const unit = Number(last);
      for (const [name, address, ranges] of known.layers) {
        const weight = words.length > 1 ? fitLayer(name, words.slice(0, -1)) : name === here ? 9 : 0;
        if (weight < 0 || !ranges.some(([first, end]) => first <= unit && unit <= end)) continue;
        hits.push({ label: `${name}, unit ${unit}`, kind: "unit", href: `unit/${address}/${unit}.html`, weight: weight + 1 });
      }
    }
    for (const [name, address] of known.layers) {
      const weight = fitLayer(name, words);
      if (weight > 0) hits.push({ label: name, kind: "layer", href: `layer/${address}.html`, weight: weight + 0.5 });
    }
    for (const [unit, name] of known.classes) {
      const weight = String(unit) === query && words.length === 1 ? 2 : fit(name, query);
      if (weight) hits.push({ label: name, kind: "class", href: `class/${unit}.html`, weight: weight + 0.9 });
    }
    for (const [label, name] of known.labels) {
      const weight = fit(name, query);
      if (weight) hits.push({ label: name, kind: "label", href: `class/label-${label}.html`, weight: weight + 0.8 });
    }
    for (const [image, name] of known.images) {
      const weight = fit(name, query);
      if (weight) hits.push({ label: name, kind: "image", href: `image/${image}.html`, weight });
    }
    return hits.sort((a, b) => b.weight - a.weight || a.label.length - b.label.length || (a.label < b.label ? -1 : 1)).slice(0, MOST);
  }

  /** What the page at an address shows, as search calls it. @param {string} page */
  function named(page) {
    const [, folder, layer, number] = /^(\w+)\/(?:(.+)\/)?(.+)\.html$/.exec(page) || [];
    if (!known || !folder) return "";
    const of = (/** @type {string} */ address) => (known ? known.layers.find((one) => one[1] === address) : undefined) || [address];
    const name = (/** @type {[number, string, ...any][]} */ list, /** @type {string} */ key) => (list.find((one) => String(one[0]) === key) || ["", ""])[1];
    if (folder === "unit") return `${of(layer)[0]}, unit ${number}`;
    if (folder === "layer") return number === "output" ? "Classes" : String(of(number)[0]);
    if (folder === "image") return name(known.images, number);
    return number.startsWith("label-") ? name(known.labels, number.slice(6)) : name(known.classes, number);
  }

  /**
   * Makes a field a search field.
   * @param {HTMLInputElement} field
   * @param {HTMLElement} list
   * @param {(hit: Hit) => void} chosen
   */
  function searchField(field, list, chosen) {
    /** @type {Hit[]} */
    let hits = [];
    let at = 0;
    const close = () => {
      list.hidden = true;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    };
    const show = () => {
      list.replaceChildren(
        ...hits.map((hit, index) => {
          const item = element("li", { role: "option", id: `${list.id}-${index}`, "aria-selected": String(index === at) });
          const link = element("a", { href: root + hit.href, tabindex: "-1" });
          link.append(element("span", {}, hit.label), element("small", {}, hit.kind));
          link.addEventListener("click", (event) => {
            event.preventDefault();
            chosen(hit);
          });
          item.append(link);
          return item;
        }),
      );
      if (!hits.length && field.value.trim()) list.append(element("li", { role: "option", "aria-selected": "false" }, "nothing found"));
      list.hidden = !field.value.trim();
      field.setAttribute("aria-expanded", String(!list.hidden));
      if (hits.length) field.setAttribute("aria-activedescendant", `${list.id}-${at}`);
    };
    const update = () =>
      load(() => {
        hits = search(field.value);
        at = 0;
        show();
      });
    field.addEventListener("focus", () => load(() => undefined));
    field.addEventListener("input", update);
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        at = Math.max(0, Math.min(hits.length - 1, at + (event.key === "ArrowDown" ? 1 : -1)));
        show();
      } else if (event.key === "Enter" && hits[at]) {
        event.preventDefault();
        chosen(hits[at]);
        close();
      } else if (event.key === "Escape") {
        close();
        field.blur();
      }
    });
    field.addEventListener("blur", () => setTimeout(close, 200));
  }

  /** The search field of the page's bar: it takes JavaScript, so that it is not there without. */
  function searchOfBar() {
    const bar = find(".tools");
    if (!bar) return null;
    const words = { type: "search", placeholder: "Search   /", "aria-label": "Search units, classes and images", autocomplete: "off" };
    const made = { id: "search", role: "combobox", "aria-expanded": "false", "aria-controls": "found" };
    const input = /** @type {HTMLInputElement} */ (element("input", { ...words, ...made }));
    const found = element("ul", { id: "found", role: "listbox", "aria-label": "Found" });
    found.hidden = true;
    const area = element("div", { class: "search", role: "search" });
    area.append(input, found);
    bar.prepend(area);
    searchField(input, found, (hit) => {
      location.href = root + hit.href;
    });
    return input;
  }
  const field = searchOfBar();

  // -------------------------------------------------------------------------------------------------------------------- keys

  const KEYS = [
    ["/", "search: a class, an image, or “12 265” for a unit"],
    ["← →", "the neighbour"],
    ["↑", "up: from a unit to its layer"],
    ["c", "compare this page with another"],
    ["?", "these keys"],
  ];

  function help() {
    const dialog = /** @type {HTMLDialogElement} */ (find("#keys") || element("dialog", { id: "keys", "aria-label": "Keys" }));
    if (!dialog.isConnected) {
      const rows = element("dl");
      for (const [key, what] of KEYS) {
        const name = element("dt");
        name.append(element("kbd", {}, key));
        rows.append(name, element("dd", {}, what));
      }
      const done = element("button", { type: "button" }, "Close");
      done.addEventListener("click", () => dialog.close());
      dialog.append(element("strong", {}, "Keys"), rows, done);
      document.body.append(dialog);
    }
    dialog.showModal();
  }

  /** The address of this page from the root of the site. */
  function here() {
    const depth = root.split("../").length - 1;
    return location.pathname.split("/").slice(-depth - 1).join("/");
  }

  /** @param {string} selector */
  const follow = (selector) => {
    const link = /** @type {HTMLAnchorElement | null} */ (find(selector));
    if (link) link.click();
  };

  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog[open]")) return;
    const tile = target.closest("#units a");
    if (event.key === "/" && field) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "?") help();
    else if (event.key === "c" && kind && kind !== "compare") location.href = `${root}compare.html#a=${encodeURIComponent(here())}`;
    else if (tile && event.key.startsWith("Arrow")) {
      event.preventDefault();
      step(/** @type {HTMLElement} */ (tile), event.key);
    } else if (event.key === "ArrowLeft") follow('a[rel="prev"]');
    else if (event.key === "ArrowRight") follow('a[rel="next"]');
    else if (event.key === "ArrowUp" && window.scrollY === 0) follow('a[rel="up"]');
  });

  /** Moves the focus between tiles of a grid. @param {HTMLElement} tile @param {string} key */
  function step(tile, key) {
    const tiles = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#units a:not([hidden])")]);
    const top = tiles[0].offsetTop;
    const across = Math.max(1, tiles.filter((one) => one.offsetTop === top).length);
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key] || 0;
    const next = tiles[tiles.indexOf(tile) + move];
    if (next) next.focus();
  }

  // ----------------------------------------------------------------------------------------------------------- a layer's page

  function layerPage() {
    const data = /** @type {{rows: Row[], findings: string[]} | undefined} */ (/** @type {any} */ (window).atlasLayer);
    const grid = find("#units");
    const controls = find("#controls");
    if (!data || !grid || !controls) return;
    const sort = /** @type {HTMLSelectElement} */ (find("#sort"));
    const show = /** @type {HTMLSelectElement | null} */ (find("#show"));
    const filter = /** @type {HTMLInputElement} */ (find("#filter"));
    const map = /** @type {HTMLInputElement | null} */ (find("#map"));
    const counted = find("#counted");
    // a unit and its tile are held together here, once; sorting moves the pairs
    const pairs = data.rows.map((row, place) => ({ row, tile: /** @type {HTMLElement} */ (grid.children[place]) }));
    for (const { row, tile } of pairs) {
      tile.dataset.unit = String(row[0]);
      tile.append(" ", element("i"));
    }
    /** @param {number} value */
    const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "");
    /** @type {Record<string, {key: (row: Row) => number, text: (row: Row) => string}>} */
    const ways = {
      unit: { key: (row) => row[0], text: () => "" },
      maximum: { key: (row) => -(row[2] ?? -Infinity), text: (row) => short(row[2]) },
      active: { key: (row) => -(row[3] ?? -Infinity), text: (row) => `${short(100 * row[3])} %` },
      auc: { key: (row) => -(row[5] ?? -Infinity), text: (row) => `${row[4]} ${short(row[5] ?? NaN)}` },
      similar: { key: (row) => row[7], text: () => "" },
    };

    function apply() {
      const way = ways[sort.value] || ways.unit;
      const wanted = show ? show.value : "";
      const bit = wanted && wanted !== "healthy" ? 1 << data.findings.indexOf(wanted) : 0;
      const word = filter.value.trim().toLowerCase();
      pairs.sort((a, b) => way.key(a.row) - way.key(b.row) || a.row[0] - b.row[0]);
      let count = 0;
      for (const { row, tile } of pairs) {
        const healthy = wanted === "healthy" ? row[6] === 0 : bit ? (row[6] & bit) !== 0 : true;
        const named = !word || String(row[0]) === word || fit(row[1], word) > 0 || fit(row[4], word) > 0;
        const placed = !map || !map.checked || row[8] !== null;
        tile.hidden = !(healthy && named && placed);
        tile.style.display = tile.hidden ? "none" : "";
        count += tile.hidden ? 0 : 1;
        tile.style.left = map && map.checked ? `${4 + 92 * (row[8] ?? 0)}%` : "";
        tile.style.top = map && map.checked ? `${5 + 90 * (row[9] ?? 0)}%` : "";
        const note = tile.querySelector("i");
        if (note) note.textContent = way.text(row);
        grid.append(tile);
      }
      grid.classList.toggle("map-view", Boolean(map && map.checked));
      if (counted) counted.textContent = count === pairs.length ? "" : `${count} of ${pairs.length}`;
      state.write({
        sort: sort.value === "unit" ? "" : sort.value,
        show: wanted,
        find: filter.value.trim(),
        map: map && map.checked ? "1" : "",
      });
    }

    function fromAddress() {
      const given = state.read();
      sort.value = given.get("sort") || "unit";
      if (!sort.value) sort.value = "unit";
      if (show) show.value = given.get("show") || "";
      if (show && show.selectedIndex < 0) show.value = "";
      filter.value = given.get("find") || "";
      if (map) map.checked = given.get("map") === "1";
      apply();
    }

    controls.hidden = false;
    for (const control of [sort, show, map]) if (control) control.addEventListener("change", apply);
    filter.addEventListener("input", apply);
    window.addEventListener("hashchange", fromAddress);
    fromAddress();
  }

  // ------------------------------------------------------------------------------------------------------------------ compare

  const PAGE = /^(unit\/[a-z0-9._~-]+\/\d+|class\/(label-)?\d+|image\/\d+|layer\/[a-z0-9._~-]+)\.html$/;

  function comparePage() {
    const area = find("#compare");
    if (!area) return;
    area.hidden = false;
    const sides = ["a", "b"];
    /** @param {string} side */
    const frame = (side) => /** @type {HTMLIFrameElement} */ (find(`[data-frame="${side}"]`));
    function fromAddress() {
      const given = state.read();
      for (const side of sides) {
        const page = given.get(side) || "";
        // nothing but a page of this site is opened
        if (!PAGE.test(page) || page.includes("..")) continue;
        frame(side).src = `${root}${page}?embed`;
        load(() => {
          /** @type {HTMLInputElement} */ (find(`[data-side="${side}"]`)).value = named(page);
        });
      }
    }
    for (const side of sides) {
      const input = /** @type {HTMLInputElement} */ (find(`[data-side="${side}"]`));
      const list = element("ul", { role: "listbox", id: `found-${side}`, class: "found", "aria-label": "Found" });
      list.hidden = true;
      input.setAttribute("role", "combobox");
      input.setAttribute("aria-expanded", "false");
      input.setAttribute("aria-controls", list.id);
      input.after(list);
      searchField(input, list, (hit) => {
        const given = state.read();
        given.set(side, hit.href);
        state.write(Object.fromEntries(given));
        input.value = hit.label;
        fromAddress();
      });
    }
    window.addEventListener("hashchange", fromAddress);
    fromAddress();
  }

  // ------------------------------------------------------------------------------------------------------------ copies, embed

  /** @param {string} text */
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = /** @type {HTMLTextAreaElement} */ (element("textarea", { "aria-hidden": "true" }));
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  /** @param {string} label @param {() => string} text */
  function copyButton(label, text) {
    const button = element("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      await copy(text());
      button.textContent = "Copied";
      setTimeout(() => {
        button.textContent = label;
      }, 1500);
    });
    return button;
  }

  for (const code of document.querySelectorAll("[data-copy]")) code.after(copyButton("Copy", () => code.textContent || ""));
  /** The citation beside it as a BibTeX entry. @param {HTMLElement} code */
  function bibtex(code) {
    const plain = (/** @type {string} */ text) => text.replace(/[\\{}]/g, "").replace(/[#$%&_]/g, "\\$&");
    const key = (code.dataset.cite || "").replace(/[^a-zA-Z0-9.]/g, "-");
    const place = location.protocol === "file:" ? here() : location.href.split("#")[0];
    const fields = [`  title = {{${plain(code.textContent || "")}}}`, `  howpublished = {\\url{${place}}}`];
    return `@misc{${key},\n${fields.join(",\n")}\n}\n`;
  }

  for (const code of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-cite]"))) {
    (code.nextElementSibling || code).after(copyButton("Copy as BibTeX", () => bibtex(code)));
  }
  const copies = find(".copies");
  if (copies) {
    const item = element("li");
    const compare = element("button", { type: "button" }, "Compare with another page");
    compare.addEventListener("click", () => {
      location.href = `${root}compare.html#a=${encodeURIComponent(here())}`;
    });
    item.append(copyButton("Copy the link to this page", () => location.href.split("#")[0]), compare);
    copies.append(item);
  }
  if (new URLSearchParams(location.search).has("embed")) {
    document.documentElement.classList.add("embed");
    for (const link of document.querySelectorAll("main a[href]")) link.setAttribute("target", "_top");
  }
  if (kind === "layer") layerPage();
  if (kind === "compare") comparePage();
})();
