// The live page where `convscope serve` stands behind it: photographs are measured by the network itself, which then does more with them.
"use strict";
(() => {
  const live = /** @type {any} */ (window).atlasLive;
  const { element, find, short, percent, reveal } = live;

  /** @param {string} text @returns {ArrayBuffer} */
  const buffer = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer;

  /** An answer of the server, or its reason as an error. @param {string} address @param {RequestInit} options */
  async function ask(address, options = {}) {
    const response = await fetch(`api/${address}`, options);
    if (response.ok) return response;
    const reason = await response.json().catch(() => ({}));
    throw new Error(typeof reason.detail === "string" ? reason.detail : `the server answers ${response.status}`);
  }

  /** The server's numbers of photographs. @type {Map<number, number>} */
  const numbers = new Map();

  live.measureBy({
    started: true,
    opened: null,
    /** @param {number} photo @param {Blob} file */
    async read(photo, file) {
      const began = performance.now();
      const found = await (await ask("photographs", { method: "POST", body: file })).json();
      numbers.set(photo, found.photo);
      const values = Object.fromEntries(["output", "means"].map((name) => [name, new Float32Array(buffer(found[name]))]));
      return { ...values, pixels: new Uint8Array(buffer(found.pixels)), of: found.of, times: [0, performance.now() - began] };
    },
    /** @param {number} photo @param {number} layer */
    async maps(photo, layer) {
      const name = encodeURIComponent(live.network.layers[layer].name);
      const found = await (await ask(`photographs/${numbers.get(photo)}/maps?layer=${name}`)).json();
      return new Float32Array(buffer(found.maps));
    },
  });
  live.say("Ready.");

  /**
   * Follows server-sent events.
   * @param {string} address @param {AbortSignal} signal @param {(name: string, value: any) => void} told
   */
  async function follow(address, signal, told) {
    const response = await ask(address, { method: "POST", signal });
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop() || "";
      for (const part of parts) {
        const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(part) || [];
        if (name) told(name, JSON.parse(data));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------------ the panels

  const now = () => live.now();
  /** @type {number[]} units of the layer that are silenced together */
  let silenced = [];
  let silencedIn = "";
  /** @type {AbortController | null} */
  let running = null;

  /** @param {string} id @param {string} title @param {string} note @param {...(Node | string)} parts */
  const panel = (id, title, note, ...parts) =>
    element("section", { "aria-labelledby": id }, element("h2", { id }, title), ...parts, element("p", { class: "note" }, note), element("div", { id: `${id}-found`, role: "status" }));

  /** Puts a result into its panel, and into view. @param {string} id @param {...(Node | string)} parts */
  function put(id, ...parts) {
    find(`#${id}-found`).replaceChildren(...parts);
    reveal(find(`#${id}-found`));
  }

  /** A button that is disabled while it works; what goes wrong is said in the panel. @param {string} text @param {() => Promise<void>} work @param {string} id */
  function button(text, work, id) {
    const made = /** @type {HTMLButtonElement} */ (element("button", { type: "button" }, text));
    made.addEventListener("click", async () => {
      made.disabled = true;
      try {
        await work();
      } catch (error) {
        if (/** @type {Error} */ (error).name !== "AbortError")
          put(id, element("p", { class: "bad" }, /** @type {Error} */ (error).message));
      } finally {
        made.disabled = false;
      }
    });
    return made;
  }

  /** A button that keeps a result below --out. @param {number} result */
  const keep = (result) => {
    const made = /** @type {HTMLButtonElement} */ (element("button", { type: "button" }, "Keep"));
    const wrong = element("span", { class: "bad" });
    made.addEventListener("click", async () => {
      made.disabled = true;
      wrong.remove();
      try {
        const { kept } = await (await ask(`results/${result}/keep`, { method: "POST" })).json();
        made.textContent = `Kept as ${kept}`;
      } catch (error) {
        wrong.textContent = ` ${/** @type {Error} */ (error).message}`;
        made.after(wrong);
        made.disabled = false;
      }
    });
    return made;
  };

  const photo = () => numbers.get(now().photo.id);
  const chosen = () => `layer=${encodeURIComponent(now().name)}&unit=${now().unit}`;

  // occlusion: each patch is drawn as soon as its score is there
  async function hide() {
    running?.abort();
    running = new AbortController();
    const { height, width } = live.network.preprocessing;
    const canvas = /** @type {HTMLCanvasElement} */ (element("canvas", { class: "map", role: "img", "aria-label": "Occlusion: bright where hiding lowers the score" }));
    [canvas.width, canvas.height] = [width, height];
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const words = element("p", { class: "note" }, "Hiding one part after another …");
    const under = /** @type {HTMLCanvasElement} */ (element("canvas", {}));
    put("hidden", element("figure", { class: "made small" }, element("span", { class: "laid-on" }, copyOf(under), canvas)), words);
    /** @type {[number[], number][]} */
    const patches = [];
    const began = performance.now();
    let first = 0;
    const stride = 16;
    const draw = (/** @type {number} */ base) => {
      const most = Math.max(...patches.map(([, score]) => base - score), 1e-9);
      pen.clearRect(0, 0, width, height);
      pen.fillStyle = "rgb(18 18 24 / 92%)";
      pen.fillRect(0, 0, width, height);
      for (const [[y0, x0, y1, x1], score] of patches) {
        const share = Math.max(0, base - score) / most;
        const [y, x] = [(y0 + y1) / 2 - stride / 2, (x0 + x1) / 2 - stride / 2];
        pen.clearRect(x, y, stride, stride);
        pen.fillStyle = `rgb(18 18 24 / ${92 * (1 - share)}%)`;
        pen.fillRect(x, y, stride, stride);
      }
    };
    // by log-odds: a share near 100 % would hide what patches do
    const share = (/** @type {number} */ odds) => 1 / (1 + Math.exp(-odds));
    const likely = Math.max(...live.shares(now().photo.output));
    const before = Math.log(likely / Math.max(1 - likely, 1e-12));
    await follow(`photographs/${photo()}/occlusion?patch=32&stride=${stride}&score=log-odds`, running.signal, (name, value) => {
      if (name === "failed") throw new Error(value.detail);
      if (name === "occlusion") {
        first ||= performance.now() - began;
        value.boxes.forEach((/** @type {number[]} */ box, /** @type {number} */ index) => patches.push([box, value.scores[index]]));
        draw(before);
        words.textContent = `${patches.length} parts hidden …`;
      }
      if (name === "done") {
        draw(value.base);
        const lowest = Math.min(...patches.map(([, score]) => score));
        const odds = Math.exp(Math.min(value.base - lowest, 50));
        const fall = odds >= 1.5 ? ` (its odds fall to ${odds > 1e4 ? "less than 1/10,000" : `1/${short(odds)}`})` : "";
        const text = `${live.network.classes[value.target]}: ${percent(share(value.base))} on the whole photograph, ${percent(share(lowest))} with the most important part hidden${fall}. `;
        words.replaceChildren(text, `Bright: hiding it lowers the class's log-odds. First part after ${(first / 1000).toFixed(2)} s, all ${patches.length} after ${((performance.now() - began) / 1000).toFixed(1)} s. `, keep(value.result));
      }
    });
  }

  /** @param {HTMLCanvasElement} canvas */
  function copyOf(canvas) {
    const source = /** @type {HTMLCanvasElement} */ (find("#photo"));
    [canvas.width, canvas.height] = [source.width, source.height];
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(source, 0, 0);
    return canvas;
  }

  // the units behind the verdict, each measured by silencing it
  async function behind() {
    const { layer, name } = now();
    const found = await (await ask(`photographs/${photo()}/attribution?layer=${encodeURIComponent(name)}`, { method: "POST" })).json();
    const called = live.network.classes[found.target];
    const one = (/** @type {{unit: number, lost: number}} */ row) => {
      const choose = element("button", { type: "button", "aria-label": `Choose unit ${row.unit}` }, "choose");
      choose.addEventListener("click", () => {
        live.choose(row.unit);
        reveal(find("#unit"));
      });
      return element("div", { class: "with-button" }, live.tile(layer, row.unit, `${row.lost < 0 ? "−" : "+"}${short(Math.abs(row.lost))}`), choose);
    };
    const [raise, lower] = [found.units.slice(0, found.raising), found.units.slice(found.raising)];
    const all = button("Silence all that raise it", () => silence(raise.map((/** @type {{unit: number}} */ row) => row.unit)), "silenced");
    const tiles = (/** @type {string} */ title, /** @type {any[]} */ rows) =>
      rows.length ? [element("h3", {}, title), element("div", { class: "tiles" }, ...rows.map(one))] : [];
    const after = live.network.classes[found.without];
    const verdict = raise.length ? `Without ${raise.length === 1 ? "the unit" : `all ${raise.length}`} that raise it: ${after === called ? `still ${called}` : after}.` : `No unit of ${name} raises it.`;
    put(
      "behind",
      element("p", { class: "lead" }, `${called}, in ${name}. ${verdict}`),
      ...tiles(`Raise ${called}`, raise),
      ...tiles(`Lower ${called}`, lower),
      element("p", {}, ...(raise.length ? [all, " "] : []), keep(found.result)),
    );
  }

  /** Silences units of the layer, the chosen one by default. @param {number[]} more */
  async function silence(more = [now().unit]) {
    const { name } = now();
    if (silencedIn !== name) [silenced, silencedIn] = [[], name];
    silenced.push(...more.filter((one) => !silenced.includes(one)));
    const units = silenced.map((one) => `units=${one}`).join("&");
    const found = await (await ask(`photographs/${photo()}/knockout?layer=${encodeURIComponent(name)}&${units}`, { method: "POST" })).json();
    const best = (/** @type {string} */ key) => found.classes.reduce((/** @type {any} */ a, /** @type {any} */ b) => (b[key] > a[key] ? b : a)).class;
    const rows = found.classes.map((/** @type {any} */ row) =>
      element(
        "tr",
        {},
        element("td", {}, live.network.classes[row.class]),
        element("td", {}, element("span", { class: "share", style: `--s:${row.before.toFixed(3)}` }, percent(row.before))),
        element("td", {}, element("span", { class: "share", style: `--s:${row.after.toFixed(3)}` }, percent(row.after))),
      ),
    );
    const heads = ["class", "before", "silenced"].map((text) => element("th", { scope: "col" }, text));
    const [before, after] = [best("before"), best("after")].map((one) => live.network.classes[one]);
    const verdict = before === after ? `Still ${after}.` : `It was ${before}, and is now ${after}.`;
    const again = element("button", { type: "button" }, "Let all speak again");
    again.addEventListener("click", () => {
      silenced = [];
      find("#silenced-found").replaceChildren();
    });
    put(
      "silenced",
      element("p", { class: "lead" }, `${silenced.length === 1 ? "Unit" : "Units"} ${silenced.join(", ")} of ${name} silenced. ${verdict}`),
      element("table", { class: "plain" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)),
      element("p", {}, again, " ", keep(found.result)),
    );
  }

  // the unit's map from the photograph at several shifts
  async function refine() {
    const found = await (await ask(`photographs/${photo()}/finer-map?${chosen()}`, { method: "POST" })).json();
    const map = /** @type {HTMLCanvasElement} */ (element("canvas", { class: "map", role: "img", "aria-label": `Where unit ${now().unit} fires: bright is active` }));
    const under = copyOf(/** @type {HTMLCanvasElement} */ (element("canvas", {})));
    live.lay(map, new Float32Array(buffer(found.map)), found.size, found.place);
    const words = `Unit ${now().unit} of ${now().name}, ${found.size.join(" x ")} cells. Bright is active. `;
    put("finer", element("figure", { class: "made small" }, element("span", { class: "laid-on" }, under, map), element("figcaption", {}, words, keep(found.result))));
  }

  async function project() {
    const found = await (await ask(`photographs/${photo()}/deconvnet?${chosen()}`, { method: "POST" })).json();
    const picture = element("img", { src: found.image, alt: `Projection of unit ${now().unit}` });
    put("projected", element("figure", { class: "made small" }, picture, element("figcaption", {}, `Unit ${now().unit} of ${now().name}, strongest position, value ${short(found.value)}. Grey is zero. `, keep(found.result))));
  }

  /** @param {string} what @param {string} address */
  async function optimize(what, address) {
    running?.abort();
    running = new AbortController();
    const picture = /** @type {HTMLImageElement} */ (element("img", { alt: `Image optimized from noise to excite ${what}`, width: "224", height: "224" }));
    const words = element("figcaption", {}, "Starting from noise …");
    put("made", element("figure", { class: "made small" }, picture, words));
    await follow(`${address}&steps=128`, running.signal, (name, value) => {
      if (name === "failed") throw new Error(value.detail);
      if (value.image) picture.src = value.image;
      if (name === "image") words.textContent = `Step ${value.step} of 128`;
      if (name === "done") words.replaceChildren(`${what[0].toUpperCase()}${what.slice(1)}: ${value.status}. `, keep(value.result));
    });
  }
  const optimizeUnit = () => optimize(`unit ${now().unit} of ${now().name}`, `visualization?${chosen()}`);
  const optimizePhotograph = () =>
    optimize(`what ${now().name} sees in the photograph`, `photographs/${photo()}/visualization?layer=${encodeURIComponent(now().name)}`);

  // a guess, with the p-value that the browser does not compute
  window.addEventListener("live:guess", (event) => {
    const [shows, lacks] = /** @type {CustomEvent} */ (event).detail.map((/** @type {number[]} */ ids) => ids.map((one) => numbers.get(one)));
    if (Math.min(shows.length, lacks.length) < 2) return;
    const area = element("p", { id: "p-value-found", role: "status" });
    const query = [...shows.map((/** @type {number} */ one) => `shows=${one}`), ...lacks.map((/** @type {number} */ one) => `lacks=${one}`)].join("&");
    const test = button("Test it with random permutations", async () => {
      const found = await (await ask(`hypothesis?${chosen()}&${query}`, { method: "POST" })).json();
      put("p-value", `${found.verdict} `, keep(found.result));
    }, "p-value");
    find("#tested").append(element("p", {}, test), area);
  });

  find("#more").replaceChildren(
    element(
      "div",
      { class: "two" },
      panel("hidden", "Which parts matter", "A grey patch of 32 pixels hides one part after another, and the class is measured again (occlusion).", button("Hide parts", hide, "hidden")),
      panel("behind", "Which units are behind the verdict", "What the class loses without each unit of the layer, in log-odds: the strongest for and against it, each measured by silencing it (unit attribution). 0.7 halves the odds.", button("Find the units", behind, "behind")),
      panel("silenced", "What if the unit were silent", "The chosen unit's map is set to zero; choose another and press again to silence both (knock-out).", button("Silence the chosen unit", () => silence(), "silenced")),
      panel("finer", "Where the unit fires, finer", "The network also runs on the photograph shifted by parts of the layer's step, and the maps are interleaved: up to four times as many cells each way (shift-and-stitch).", button("Make a finer map", refine, "finer")),
      panel("projected", "The unit in pixels", "The unit's activation carried back through the transposed network (deconvnet): an illustration, no evidence.", button("Project the chosen unit", project, "projected")),
      panel("made", "What would excite the unit most", "An image optimized from noise (feature visualization), as it forms; for the chosen unit, or for the photograph's own activations in the layer.", button("Optimize an image", optimizeUnit, "made"), " ", button("What the layer sees in the photograph", optimizePhotograph, "made")),
    ),
  );
  window.addEventListener("live:photo", () => {
    running?.abort();
    for (const id of ["hidden", "behind", "silenced", "finer", "projected"]) find(`#${id}-found`).replaceChildren();
    silenced = [];
  });
})();
