// The live page: photographs of the reader's, measured in this browser. A classic script, as the others.
"use strict";
(() => {
  /**
   * @typedef {{name: string, address: string, channels: number, size: [number, number], place: number[] | null, units: number[], mean: number[], sd: number[]}} Layer
   * @typedef {{ready: boolean, preprocessing: {height: number, width: number, channels: number}, suffix: string, probabilities: boolean,
   *   classes: string[], layers: Layer[], photographs: boolean, images: [number, string, string][]}} Network
   * @typedef {{id: number, name: string, group: string, file: Blob, of: [number, number], times: number[], output: Float32Array,
   *   means: Float32Array, thumb: string, pixels: Uint8Array, maps: Map<number, Float32Array>}} Photo
   */

  const network = /** @type {Network} */ (/** @type {any} */ (window).atlasNetwork);
  const TOP = 5;
  const SHEET = 64;
  const ACROSS = 8;
  const TILE = 112;
  const NEAREST = 8;
  const STEPS = 32; // to a standard deviation, of the stored images

  /** @param {string} selector @returns {any} */
  const find = (selector) => document.querySelector(selector);

  /**
   * An element with attributes and children.
   * @param {string} name @param {Record<string, string>} attributes @param {...(Node | string)} children
   */
  function element(name, attributes = {}, ...children) {
    const drawn = ["svg", "path", "image", "circle", "line", "text", "title"].includes(name);
    const made = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** A number as the other pages write it. @param {number} value */
  function short(value) {
    if (!Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
    return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }

  /** The numbers 0 to count - 1, by falling value. @param {ArrayLike<number>} values @returns {number[]} */
  const falling = (values) => Array.from(values, (_, index) => index).sort((a, b) => values[b] - values[a] || a - b);

  // ------------------------------------------------------------------------------------------------------ what scripts hold

  /** @param {string} address */
  const script = (address) =>
    new Promise((done, failed) => {
      const made = element("script", { src: address });
      made.addEventListener("load", () => done(null));
      made.addEventListener("error", () => failed(new Error(`${address} is missing`)));
      document.head.append(made);
    });

  /** The bytes that a script holds, unpacked, and let go there. @param {string} name @param {string} address */
  async function bytes(name, address) {
    const held = () => /** @type {any} */ (window).embedded?.[name];
    if (!held()) await script(address);
    const text = held();
    delete (/** @type {any} */ (window).embedded[name]);
    const packed = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  // ------------------------------------------------------------------------------------------------------------- the worker

  /** Runs the network in a worker. */
  class Measure {
    constructor() {
      /** @type {Map<number, {done: (answer: any) => void, failed: (error: Error) => void}>} */
      this.waiting = new Map();
      this.count = 0;
      const source = `"use strict";(${/** @type {any} */ (window).liveWorker})()`;
      this.worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
      this.worker.onmessage = ({ data }) => {
        const { done, failed } = /** @type {any} */ (this.waiting.get(data.id));
        this.waiting.delete(data.id);
        if (data.error === undefined) done(data.answer);
        else failed(new Error(data.error));
      };
      /** @type {Promise<any> | null} */
      this.opened = null;
      this.started = false;
    }

    /** @param {string} what @param {Record<string, any>} asked @param {Transferable[]} moved @returns {Promise<any>} */
    ask(what, asked = {}, moved = []) {
      const id = this.count++;
      return new Promise((done, failed) => {
        this.waiting.set(id, { done, failed });
        this.worker.postMessage({ id, what, ...asked }, moved);
      });
    }

    /** Loads runtime and network, once. */
    open() {
      this.opened ??= (async () => {
        const [wasm, runtime] = [await bytes("wasm", "live/runtime.js"), await bytes("mjs", "live/runtime.js")];
        const model = await bytes("model", "live/model.js");
        await this.ask("open", { wasm, runtime, model, preprocessing: network.preprocessing }, [wasm, runtime, model]);
        this.started = true;
      })();
      return this.opened;
    }

    /** @param {number} photo @param {Blob} file */
    async read(photo, file) {
      await this.open();
      return this.ask("read", { photo, file });
    }

    /** @param {number} photo @param {number} layer */
    async maps(photo, layer) {
      return (await this.ask("maps", { photo, layer }))[`map:${layer}`];
    }
  }

  /** @type {any} */
  let measure;

  // --------------------------------------------------------------------------------------------------------------- the state

  /** @type {Photo[]} */
  const photos = [];
  /** @type {Photo | null} */
  let current = null;
  let layer = 0;
  let unit = 0;
  let named = 0;
  const places = network.layers.reduce((found, one) => [...found, found[found.length - 1] + one.channels], [0]);
  const paged = network.layers.map((one) => new Map(one.units.map((each, place) => [each, place])));
  const output = network.layers.length - 1;

  /** Means of a layer's units on a photograph; of "output", the output. @param {Photo} photo @param {number} index */
  const valuesOf = (photo, index) =>
    index === output ? photo.output : photo.means.subarray(places[index], places[index] + network.layers[index].channels);

  /** How many standard deviations over the folder's images a value is above its average. @param {number} index @param {number} one @param {number} value */
  function unusual(index, one, value) {
    const { mean, sd } = network.layers[index];
    return sd[one] > 0 ? (value - mean[one]) / sd[one] : 0;
  }

  // --------------------------------------------------------------------------------------------------------------- small pieces

  /** @param {number} index @param {number} one */
  const titleOf = (index, one) => (index === output ? network.classes[one] : String(one));

  /** The address of a unit's page; "" if it has none. @param {number} index @param {number} one */
  const pageOf = (index, one) =>
    !paged[index].has(one) ? "" : index === output ? `class/${one}.html` : `unit/${network.layers[index].address}/${one}.html`;

  /** A unit's picture, from the sheet of its layer. @param {number} index @param {number} one */
  function pictureOf(index, one) {
    const place = paged[index].get(one);
    if (place === undefined) return element("span", { class: "none" });
    const [x, y] = [(place % SHEET) % ACROSS, Math.trunc((place % SHEET) / ACROSS)];
    const sheet = `sheet/${network.layers[index].address}/${Math.trunc(place / SHEET)}${network.suffix}`;
    const picture = element("image", { href: sheet, width: String(ACROSS * TILE) });
    return element("svg", { viewBox: `${x * TILE} ${y * TILE} ${TILE} ${TILE}`, "aria-hidden": "true" }, picture);
  }

  /** A unit as a tile that links to its page; pointing at it shows where it fires. @param {number} index @param {number} one @param {string} value */
  function tile(index, one, value) {
    const caption = element("span", { class: "cap" }, element("b", {}, titleOf(index, one)), " ", element("i", {}, value));
    const href = pageOf(index, one);
    const made = element(href ? "a" : "span", href ? { href } : {}, pictureOf(index, one), caption);
    if (index === layer) {
      made.addEventListener("pointerenter", () => point(one));
      made.addEventListener("focus", () => point(one));
      made.addEventListener("pointerleave", () => point(unit));
      made.addEventListener("blur", () => point(unit));
    }
    return made;
  }

  /** @param {number} index @param {[number, string][]} units */
  const tiles = (index, units) => element("div", { class: "tiles row" }, ...units.map(([one, value]) => tile(index, one, value)));

  /** @param {string} text @param {boolean} bad */
  function say(text, bad = false) {
    find("#status").textContent = text;
    find("#status").classList.toggle("bad", bad);
  }

  /** Probabilities of the classes. @param {Float32Array} values */
  function shares(values) {
    if (network.probabilities) return Array.from(values);
    const most = Math.max(...values);
    const raised = Array.from(values, (one) => Math.exp(one - most));
    const sum = raised.reduce((total, one) => total + one, 0);
    return raised.map((one) => one / sum);
  }

  /** @param {number} share */
  const percent = (share) =>
    share > 0 && share < 1e-4 ? "under 0.01 %" : `${share >= 0.1 ? (100 * share).toFixed(0) : Number((100 * share).toPrecision(2))} %`;

  /** Scrolls as little as shows a result that stands elsewhere than its button; of one taller than the window, its begin. @param {Element} result */
  const reveal = (result) =>
    result.scrollIntoView({
      block: result.clientHeight > window.innerHeight ? "start" : "nearest",
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth",
    });

  // ------------------------------------------------------------------------------------------------------------ taking photographs

  /** Measures files one after another. @param {Iterable<Blob>} files @param {string} group "with", "without" or "" */
  async function take(files, group = "") {
    const wanted = [...files];
    const began = performance.now();
    const first = !measure.started;
    let failed = "";
    for (const [index, file] of wanted.entries()) {
      const name = /** @type {File} */ (file).name || `picture ${named + 1}`;
      say(first && index === 0 ? "Starting the network …" : `Measuring ${name} …`);
      try {
        const id = named++;
        const { output: found, means, pixels, of, times } = await measure.read(id, file);
        const photo = { id, name, group, file, of, times, output: found, means, pixels, thumb: "", maps: new Map() };
        photo.thumb = draw(document.createElement("canvas"), photo).toDataURL();
        photos.push(photo);
        if (!group || !current) show(photo);
      } catch (error) {
        failed = `${name}: ${/** @type {Error} */ (error).message}`;
      }
    }
    trays();
    guess();
    const [prepare, run] = photos.length ? photos[photos.length - 1].times : [0, 0];
    const all = first && photos.length ? ` ${((performance.now() - began) / 1000).toFixed(1)} s with starting the network.` : "";
    if (failed) {
      say(failed, true);
      reveal(find("#status"));
      return;
    }
    if (photos.length) reveal(find(group && find("#tested").hasChildNodes() ? "#tested" : "#photo"));
    if (photos.length) say(`${prepare ? `Prepared in ${prepare.toFixed(0)} ms, measured` : "Measured"} in ${run.toFixed(0)} ms.${all}`);
  }

  /** Draws a photograph as the network was fed it. @param {HTMLCanvasElement} canvas @param {Photo} photo */
  function draw(canvas, photo) {
    const { width, height, channels } = network.preprocessing;
    canvas.width = width;
    canvas.height = height;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const image = pen.createImageData(width, height);
    for (let at = 0; at < width * height; at++) {
      const [red, green, blue] = photo.pixels.subarray(3 * at, 3 * at + 3);
      const grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
      image.data.set(channels === 1 ? [grey, grey, grey, 255] : [red, green, blue, 255], 4 * at);
    }
    pen.putImageData(image, 0, 0);
    return canvas;
  }

  /** @param {Photo} photo */
  function forget(photo) {
    photos.splice(photos.indexOf(photo), 1);
    if (measure.ask) measure.ask("forget", { photo: photo.id });
    if (current === photo) {
      current = null;
      if (photos.length) show(photos[photos.length - 1]);
      else find("#seen").hidden = true;
    }
    versus();
    trays();
    guess();
  }

  function trays() {
    const parts = /** @type {[string, string][]} */ ([["", "#tray"], ["with", "#with .tray"], ["without", "#without .tray"]]);
    for (const [group, selector] of parts) {
      find(selector).replaceChildren(
        ...photos
          .filter((photo) => photo.group === group)
          .map((photo) => {
            const picture = element("img", { src: photo.thumb, alt: photo.name, width: "64", height: "64" });
            const chosen = element("button", { type: "button", "aria-pressed": String(photo === current), title: photo.name }, picture);
            chosen.addEventListener("click", () => {
              show(photo);
              reveal(find("#photo"));
            });
            const away = element("button", { type: "button", class: "away", "aria-label": `Remove ${photo.name}` }, "×");
            away.addEventListener("click", () => forget(photo));
            return element("span", {}, chosen, away);
          }),
      );
    }
  }

  // ------------------------------------------------------------------------------------------------------------------ what is seen

  /** @param {Photo} photo */
  function show(photo) {
    current = photo;
    find("#seen").hidden = false;
    const { width, height } = network.preprocessing;
    for (const canvas of ["#photo", "#under"]) draw(find(canvas), photo);
    find("#photo-name").textContent = photo.name;
    find("#fed").textContent = `As the network is fed it, ${height} x ${width}; the file has ${photo.of[0]} x ${photo.of[1]} pixels`;
    classes(photo);
    layerShown();
    trays();
    window.dispatchEvent(new CustomEvent("live:photo", { detail: photo }));
  }

  /** @param {Photo} photo */
  function classes(photo) {
    const area = find("#classes");
    if (photo.output.length < 2) return area.replaceChildren(element("p", { class: "lead" }, short(photo.output[0])));
    const share = shares(photo.output);
    const rows = falling(photo.output)
      .slice(0, TOP)
      .map((one) => {
        const href = pageOf(output, one);
        const name = href ? element("a", { href }, network.classes[one]) : network.classes[one];
        const bar = element("span", { class: "share", style: `--s:${share[one].toFixed(3)}` }, percent(share[one]));
        return element("tr", {}, element("td", {}, name), element("td", {}, short(photo.output[one])), element("td", {}, bar));
      });
    const heads = ["class", "output", "share"].map((text) => element("th", { scope: "col" }, text));
    area.replaceChildren(
      element("table", { class: "plain bars" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)),
      element("p", { class: "note" }, network.probabilities ? "Share: the output itself." : "Share: softmax of the outputs."),
    );
  }

  function layerShown() {
    if (!current) return;
    const values = valuesOf(current, layer);
    const spikes = falling(values).slice(0, TOP);
    const above = Array.from(values, (value, one) => unusual(layer, one, value));
    const odd = falling(above).slice(0, TOP).filter((one) => above[one] > 0);
    chart(values, spikes);
    find("#spikes").replaceChildren(
      element("div", {}, element("h3", {}, "Highest"), tiles(layer, spikes.map((one) => [one, short(values[one])]))),
      ...(odd.length ? [element("div", {}, element("h3", {}, "Unusual"), tiles(layer, odd.map((one) => [one, `${short(above[one])} sd`])))] : []),
    );
    choose(spikes.includes(unit) ? unit : spikes[0]);
    nearest();
    versus();
  }

  /** The spectrum: a bar for each unit, and a line at the one that is pointed at. @param {Float32Array} values @param {number[]} spikes */
  function chart(values, spikes) {
    const count = values.length;
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
    const y = (/** @type {number} */ value) => 100 - (100 * (value - low)) / (high - low || 1);
    const bars = Array.from(values, (value, one) => (value ? `M${one + 0.5} ${y(0).toFixed(2)}V${y(value).toFixed(2)}` : "")).join("");
    const line = element("line", { class: "at", y1: "0", y2: "100" });
    const drawn = element(
      "svg",
      { viewBox: `0 0 ${count} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
      element("path", { d: bars, class: "units", style: `stroke-width:${count > 400 ? 1 : 0.8}` }),
      line,
    );
    const area = element("div", {
      class: "spectrum-live",
      role: "slider",
      tabindex: "0",
      "aria-label": "Unit",
      "aria-valuemin": "0",
      "aria-valuemax": String(count - 1),
      "aria-valuenow": "0",
    });
    /** @param {PointerEvent} event */
    const under = (event) => {
      const { left, width } = area.getBoundingClientRect();
      return Math.max(0, Math.min(count - 1, Math.trunc(((event.clientX - left) / width) * count)));
    };
    area.addEventListener("pointermove", (event) => point(under(/** @type {PointerEvent} */ (event))));
    area.addEventListener("pointerleave", () => point(unit));
    area.addEventListener("click", (event) => choose(under(/** @type {PointerEvent} */ (event))));
    area.addEventListener("keydown", (event) => {
      const key = /** @type {KeyboardEvent} */ (event).key;
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[key];
      const to = key === "Home" ? 0 : key === "End" ? count - 1 : step ? Math.max(0, Math.min(count - 1, unit + step)) : -1;
      if (to < 0) return;
      event.preventDefault();
      event.stopPropagation();
      choose(to);
    });
    const label = (/** @type {number} */ one) => {
      const half = `${(titleOf(layer, one).length + 1) / 2}ch`; // the chart's ends clip no label
      return element("span", { style: `left:clamp(${half}, ${(100 * (one + 0.5)) / count}%, 100% - ${half})` }, titleOf(layer, one));
    };
    const labels = spikes.slice(0, 3).map(label);
    area.append(drawn);
    find("#chart").replaceChildren(
      element("div", { class: "spikes-of", "aria-hidden": "true" }, ...apart(labels, spikes, count)),
      area,
      element("div", { class: "axis", "aria-hidden": "true" }, element("span", {}, "unit 0"), element("span", {}, `highest ${short(high)}`), element("span", {}, String(count - 1))),
    );
  }

  /** Labels that do not cover one another, the highest first. @param {Element[]} labels @param {number[]} spikes @param {number} count */
  function apart(labels, spikes, count) {
    /** @type {number[]} */
    const kept = [];
    return labels.filter((_, index) => {
      const place = spikes[index] / count;
      const room = layer === output ? 0.25 : 0.12;
      if (kept.some((other) => Math.abs(other - place) < room)) return false;
      kept.push(place);
      return true;
    });
  }

  /** Shows where a unit fires, and its place in the chart. @param {number} one */
  function point(one) {
    if (!current) return;
    const value = valuesOf(current, layer)[one];
    const words = `${layer === output ? "Class" : "Unit"} ${titleOf(layer, one)}: mean ${short(value)}`;
    const line = find("#chart .at");
    line.setAttribute("x1", String(one + 0.5));
    line.setAttribute("x2", String(one + 0.5));
    const [height, width] = network.layers[layer].size;
    find("#pointed").textContent = `${words}. ${height * width > 1 ? "Bright is active, dark is not." : "It has no map: it sees the image as a whole."}`;
    const slider = find("#chart [role=slider]");
    slider.setAttribute("aria-valuenow", String(one));
    slider.setAttribute("aria-valuetext", words);
    overlay(one);
  }

  /** Lays a unit's map over the photograph: bright is active. @param {number} one */
  async function overlay(one) {
    const canvas = find("#map");
    const [photo, index] = [/** @type {Photo} */ (current), layer];
    const [height, width] = network.layers[index].size;
    canvas.dataset.unit = String(one);
    if (index === output || height * width < 2) {
      canvas.width = 0;
      return;
    }
    let maps = photo.maps.get(index);
    if (!maps) {
      maps = await measure.maps(photo.id, index);
      photo.maps.clear(); // one layer's maps are many megabytes
      photo.maps.set(index, /** @type {Float32Array} */ (maps));
      if (photo !== current || index !== layer || canvas.dataset.unit !== String(one)) return;
    }
    lay(canvas, /** @type {Float32Array} */ (maps).subarray(one * height * width, (one + 1) * height * width), [height, width], network.layers[index].place);
  }

  /**
   * Draws a map so that each cell lies where its receptive field is; border cells go on for one more, so that the whole photograph is covered.
   * @param {HTMLCanvasElement} canvas @param {Float32Array} map @param {number[]} size @param {number[] | null | undefined} place
   */
  function lay(canvas, map, [height, width], place) {
    const most = map.reduce((a, b) => Math.max(a, b), 0);
    canvas.width = width + 2;
    canvas.height = height + 2;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const image = pen.createImageData(width + 2, height + 2);
    const inside = (/** @type {number} */ at, /** @type {number} */ length) => Math.min(Math.max(at - 1, 0), length - 1);
    for (let y = 0; y < height + 2; y++)
      for (let x = 0; x < width + 2; x++) {
        const value = map[inside(y, height) * width + inside(x, width)];
        image.data.set([18, 18, 24, 235 * (1 - (most > 0 ? Math.max(0, value) / most : 0))], 4 * (y * (width + 2) + x));
      }
    pen.putImageData(image, 0, 0);
    const whole = [network.preprocessing.height, network.preprocessing.width];
    const [y0, x0, y1, x1] = place || [0, 0, ...whole];
    const [down, across] = [(y1 - y0) / height, (x1 - x0) / width];
    const part = (/** @type {number} */ pixels, /** @type {number} */ side) => `${(100 * pixels) / side}%`;
    Object.assign(canvas.style, {
      inset: "auto",
      top: part(y0 - down, whole[0]),
      left: part(x0 - across, whole[1]),
      height: part(y1 - y0 + 2 * down, whole[0]),
      width: part(x1 - x0 + 2 * across, whole[1]),
    });
  }

  /** A unit's place among all by falling value, ties said. @param {ArrayLike<number>} values @param {number} one */
  function placeOf(values, one) {
    const all = Array.from(values);
    const higher = all.filter((other) => other > all[one]).length;
    const equal = all.filter((other) => other === all[one]).length;
    return equal > 1 ? `number ${higher + 1} to ${higher + equal} (equal) of ${all.length}` : `number ${higher + 1} of ${all.length}`;
  }

  /** Keeps a unit. @param {number} one */
  function choose(one) {
    unit = Math.max(0, Math.min(network.layers[layer].channels - 1, one));
    find("#number").value = String(unit);
    find("#number").max = String(network.layers[layer].channels - 1);
    if (current) {
      const value = valuesOf(current, layer)[unit];
      const known = network.layers[layer];
      const href = pageOf(layer, unit);
      const title = layer === output ? titleOf(layer, unit) : `Unit ${unit} of ${known.name}`;
      const words = [
        `mean ${short(value)}, ${placeOf(valuesOf(current, layer), unit)} on this photograph`,
        ...(known.mean.length ? [`${short(unusual(layer, unit, value))} sd above its average over the folder (${short(known.mean[unit])})`] : []),
      ];
      find("#unit").replaceChildren(
        element("div", { class: "tiles one" }, tile(layer, unit, "")),
        element("div", {}, element("p", {}, href ? element("a", { href }, title) : title), ...words.map((text) => element("p", { class: "note" }, text))),
      );
      point(unit);
    }
    guess();
    window.dispatchEvent(new CustomEvent("live:unit", { detail: { layer: network.layers[layer].name, unit } }));
  }

  // -------------------------------------------------------------------------------------------------- the folder, other photographs

  /** @type {Map<number, {centre: Float32Array, spread: Float32Array, steps: Int8Array}>} */
  const folder = new Map();

  async function nearest() {
    find("#near-section").hidden = !network.images.length;
    if (!network.images.length) return;
    const [photo, index] = [/** @type {Photo} */ (current), layer];
    const { name, address, channels } = network.layers[index];
    if (!folder.has(index)) {
      const data = await bytes(`near:${name}`, `live/near/${address}.js`);
      const [centre, spread] = [new Float32Array(data, 0, channels), new Float32Array(data, 4 * channels, channels)];
      folder.set(index, { centre, spread, steps: new Int8Array(data, 8 * channels) });
    }
    if (photo !== current || index !== layer) return;
    const { centre, spread, steps } = /** @type {any} */ (folder.get(index));
    const own = Array.from(valuesOf(photo, index), (value, one) => {
      const root = Math.sign(value) * Math.log1p(Math.abs(value));
      return spread[one] > 0 ? Math.max(-3.9, Math.min(3.9, (root - centre[one]) / spread[one])) * STEPS : 0;
    });
    const length = Math.hypot(...own) || 1;
    const likeness = network.images.map((_, row) => {
      let [product, square] = [0, 0];
      for (let one = 0; one < channels; one++) {
        const step = steps[row * channels + one];
        product += own[one] * step;
        square += step * step;
      }
      return product / (length * (Math.sqrt(square) || 1));
    });
    find("#nearest").replaceChildren(
      ...falling(likeness)
        .slice(0, NEAREST)
        .map((row) => {
          const [image, file, label] = network.images[row];
          const { width, height } = network.preprocessing;
          const sizes = { width: String(width), height: String(height), loading: "lazy" };
          const picture = network.photographs ? element("img", { src: `image/${image}.webp`, alt: "", ...sizes }) : element("span", { class: "none" });
          const caption = element("span", { class: "cap" }, element("i", {}, likeness[row].toFixed(2)), ` ${label || file}`);
          return element("a", { href: `image/${image}.html` }, picture, caption);
        }),
    );
  }

  function versus() {
    const others = photos.filter((photo) => photo !== current);
    find("#versus-section").hidden = !others.length;
    if (!current || !others.length) return;
    const menu = find("#other");
    const before = menu.value;
    menu.replaceChildren(...others.map((photo) => element("option", { value: String(photo.id) }, photo.name)));
    if (others.some((photo) => String(photo.id) === before)) menu.value = before;
    const other = /** @type {Photo} */ (others.find((photo) => String(photo.id) === menu.value));
    const [own, its] = [valuesOf(current, layer), valuesOf(other, layer)];
    // without a folder there are no standard deviations: means are compared as they are
    const measured = network.layers[layer].mean.length > 0;
    const gap = Array.from(own, (value, one) => (measured ? unusual(layer, one, value) - unusual(layer, one, its[one]) : value - its[one]));
    find("#versus-note").textContent = `The units of the layer whose means differ most, ${measured ? "in standard deviations over the folder's images" : "by the difference of their mean activations"}.`;
    const sides = /** @type {[string, number[]][]} */ ([
      [`Higher on ${current.name}`, gap],
      [`Higher on ${other.name}`, gap.map((value) => -value)],
    ]);
    find("#differ").replaceChildren(
      element(
        "div",
        { class: "pair" },
        ...sides.map(([title, values]) => {
          const most = falling(values).slice(0, TOP).filter((one) => values[one] > 0);
          const found = /** @type {[number, string][]} */ (most.map((one) => [one, `${short(values[one])}${measured ? " sd" : ""}`]));
          return element("div", {}, element("h3", {}, title), tiles(layer, found));
        }),
      ),
    );
  }

  // ------------------------------------------------------------------------------------------------------------------- a guess

  /** How often a value of the first is above one of the second, ties half. @param {number[]} first @param {number[]} second */
  function auc(first, second) {
    let sum = 0;
    for (const one of first) for (const other of second) sum += one > other ? 1 : one === other ? 0.5 : 0;
    return sum / (first.length * second.length);
  }

  /** Number of ways to choose k of n. @param {number} n @param {number} k */
  const ways = (n, k) => Array.from({ length: k }, (_, index) => (n - index) / (k - index)).reduce((product, one) => product * one, 1);

  function guess() {
    const area = find("#tested");
    const groups = ["with", "without"].map((group) => photos.filter((photo) => photo.group === group));
    const [shown, rest] = groups.map((group) => group.map((photo) => valuesOf(photo, layer)));
    if (!shown.length || !rest.length) {
      const lacking = shown.length || rest.length ? (shown.length ? "photographs that do not show it" : "photographs that show it") : "";
      area.replaceChildren(...(lacking ? [element("p", { class: "note" }, `Still missing: ${lacking}.`)] : []));
      return;
    }
    const known = network.layers[layer];
    const all = Array.from({ length: known.channels }, (_, one) => auc(shown.map((v) => v[one]), rest.map((v) => v[one])));
    const chance = known.channels / ways(shown.length + rest.length, shown.length);
    const lucky = chance >= 0.1 ? (chance < 10 ? chance.toFixed(1) : chance.toFixed(0)) : "fewer than 0.1";
    const title = layer === output ? titleOf(layer, unit) : `Unit ${unit} of ${known.name}`;
    const caution =
      chance >= 0.5
        ? "so a high AUC alone says little: add photographs."
        : `so the rank counts.${document.body.dataset.serve ? "" : " For a corrected p-value: convscope hypothesis."}`;
    area.replaceChildren(
      element("p", { class: "lead" }, `${title}: AUC ${all[unit].toFixed(3)}, ${placeOf(all, unit)} units.`),
      dots(shown.map((values) => values[unit]), rest.map((values) => values[unit])),
      element("h3", {}, "Units that separate them best"),
      tiles(layer, falling(all).slice(0, TOP).map((one) => [one, all[one].toFixed(3)])),
      element("p", { class: "note" }, `With ${shown.length} against ${rest.length} photographs, ${lucky} of ${known.channels} units would reach AUC 1 by chance, ${caution}`),
    );
    window.dispatchEvent(new CustomEvent("live:guess", { detail: groups.map((group) => group.map((photo) => photo.id)) }));
  }

  /** The unit on each photograph, those that show it above those that do not. @param {number[]} shown @param {number[]} rest */
  function dots(shown, rest) {
    const [low, high] = [Math.min(0, ...shown, ...rest), Math.max(...shown, ...rest)];
    const row = (/** @type {string} */ name, /** @type {number[]} */ values) =>
      element(
        "div",
        { class: "dots" },
        element("span", {}, name),
        element("span", { class: "line" }, ...values.map((value) => element("i", { style: `left:${(100 * (value - low)) / (high - low || 1)}%`, title: short(value) }))),
      );
    const ends = element("div", { class: "dots ends" }, element("span", {}), element("span", { class: "axis" }, element("span", {}, short(low)), element("span", {}, `mean activation`), element("span", {}, short(high))));
    return element("div", {}, row("show it", shown), row("do not", rest), ends);
  }

  // --------------------------------------------------------------------------------------------------------------- doors for files

  /** @param {HTMLElement} area @param {string} group */
  function door(area, group) {
    for (const kind of ["dragenter", "dragover"])
      area.addEventListener(kind, (event) => {
        event.preventDefault();
        area.classList.add("over");
      });
    for (const kind of ["dragleave", "drop"]) area.addEventListener(kind, () => area.classList.remove("over"));
    area.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      take(event.dataTransfer ? event.dataTransfer.files : [], group);
    });
  }

  let asked = "";
  /** @param {string} group */
  function chooser(group) {
    asked = group;
    find("#files").click();
  }

  /** A picture from the camera. */
  async function camera() {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true }).catch(() => null);
    if (!stream) return say("The browser gives no picture of a camera.", true);
    const video = /** @type {HTMLVideoElement} */ (element("video", { autoplay: "", playsinline: "", muted: "" }));
    const snap = element("button", { type: "button" }, "Take it");
    const close = element("button", { type: "button" }, "Close");
    const dialog = /** @type {HTMLDialogElement} */ (element("dialog", { class: "camera", "aria-label": "Camera" }, video, snap, " ", close));
    video.srcObject = stream;
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      for (const track of stream.getTracks()) track.stop();
      dialog.remove();
    });
    close.addEventListener("click", () => dialog.close());
    snap.addEventListener("click", () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(video, 0, 0);
      canvas.toBlob((blob) => blob && take([blob]), "image/png");
      dialog.close();
    });
    dialog.showModal();
  }

  function start() {
    const files = find("#files");
    find("#live").hidden = false;
    find("#choose").addEventListener("click", () => chooser(""));
    files.addEventListener("change", () => {
      const chosen = [...files.files];
      files.value = "";
      take(chosen, asked);
    });
    door(document.body, "");
    for (const group of ["with", "without"]) {
      door(find(`#${group}`), group);
      find(`#${group} button`).addEventListener("click", () => chooser(group));
    }
    document.addEventListener("paste", (event) => {
      const pasted = event.clipboardData ? [...event.clipboardData.files] : [];
      if (pasted.length) take(pasted);
    });
    if (navigator.mediaDevices) {
      find("#camera").hidden = false;
      find("#camera").addEventListener("click", camera);
    }
    const menu = find("#layer");
    menu.append(...network.layers.map((one, index) => element("option", { value: String(index) }, index === output ? "Classes" : one.name)));
    layer = Math.max(0, output - 1);
    // a layer with a map for each class says no more than the classes themselves
    while (layer > 0 && network.layers[layer].channels === network.layers[output].channels) layer -= 1;
    menu.value = String(layer);
    menu.addEventListener("change", () => {
      layer = Number(menu.value);
      unit = 0;
      layerShown();
      guess();
    });
    find("#number").addEventListener("change", () => choose(Math.trunc(Number(find("#number").value)) || 0));
    find("#other").addEventListener("change", versus);
  }

  /** What other scripts of the page may use. */
  /** @type {any} */ (window).atlasLive = {
    network,
    photos,
    take,
    say,
    choose,
    lay,
    tile,
    shares,
    find,
    element,
    short,
    percent,
    reveal,
    falling,
    now: () => ({ photo: current, layer, unit, name: network.layers[layer].name }),
    /** Measures elsewhere than in this browser. @param {any} other */
    measureBy(other) {
      measure = other;
      start();
    },
    measure: () => measure,
  };

  if (network.ready && !document.body.dataset.serve) {
    if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") {
      find("#live").hidden = false;
      find("#live").replaceChildren(element("p", { class: "bad" }, "This browser is too old for this page."));
      return;
    }
    measure = new Measure();
    start();
    say("Starting the network …");
    measure.open().then(
      () => photos.length || say("Ready."),
      (/** @type {Error} */ error) => say(`The network does not start: ${error.message}`, true),
    );
  }
})();
