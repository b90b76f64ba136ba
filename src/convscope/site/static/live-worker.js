// What the live page does in a worker: a file becomes the network's input exactly as the library makes it, and the network runs on it.
// A function, for its text: from a file, browsers start a worker from a blob alone.
"use strict";
/** @type {any} */ (window).liveWorker = () => {
  /**
   * @typedef {{height: number, width: number, interpolation: string, crop: number | null, channels: number, upright: boolean}} Preprocessing
   * @typedef {{data: Uint8Array, width: number, height: number}} Pixels  8-bit RGB, row by row
   */

  // -------------------------------------------------------------------------------------------------- resizing, as Pillow does it

  /** Filters as Pillow has them: reach, and value at a distance. @type {Record<string, [number, (x: number) => number]>} */
  const FILTERS = {
    bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
    bicubic: [
      2,
      (x) => {
        const a = -0.5;
        x = Math.abs(x);
        if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
      },
    ],
    lanczos: [3, (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0)],
  };
  const BITS = 22; // of the fixed-point weights

  /** @param {number} x */
  const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

  /**
   * For each pixel along a resized axis, the first pixel that it is made of, and their weights.
   * @param {number} from @param {number} to @param {string} interpolation
   * @returns {{first: number, weights: Int32Array}[]}
   */
  function weightsOf(from, to, interpolation) {
    const scale = from / to;
    const whole = Int32Array.of(2 ** BITS);
    if (from === to) return Array.from({ length: to }, (_, index) => ({ first: index, weights: whole }));
    if (interpolation === "nearest") {
      let place = scale * 0.5; // summed up, so that it falls on the same side of whole numbers
      return Array.from({ length: to }, () => {
        const first = Math.trunc(place);
        place += scale;
        return { first, weights: whole };
      });
    }
    const [reach, filter] = FILTERS[interpolation];
    const wide = Math.max(scale, 1);
    return Array.from({ length: to }, (_, index) => {
      const centre = (index + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
      const end = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
      const weights = Array.from({ length: end - first }, (_, at) => filter((at + first - centre + 0.5) * (1 / wide)));
      const sum = weights.reduce((total, one) => total + one, 0);
      return { first, weights: Int32Array.from(weights, (one) => Math.trunc((one / sum) * 2 ** BITS + (one < 0 ? -0.5 : 0.5))) };
    });
  }

  /**
   * Resizes along one axis, rounding to 8 bits. Sample k of line l lies at l * line + k * step.
   * @param {Uint8Array | Uint8ClampedArray} source @param {{first: number, weights: Int32Array}[]} axis @param {Uint8Array} target
   * @param {number} lines @param {number} line @param {number} step @param {number} lineOut @param {number} stepOut
   */
  function along(source, axis, target, lines, line, step, lineOut, stepOut) {
    axis.forEach(({ first, weights }, at) => {
      for (let index = 0; index < lines; index++) {
        let sum = 1 << (BITS - 1);
        let place = index * line + first * step;
        for (let k = 0; k < weights.length; k++, place += step) sum += source[place] * weights[k];
        target[index * lineOut + at * stepOut] = Math.max(0, Math.min(255, sum >> BITS));
      }
    });
  }

  const CHANNELS = [0, 1, 2];

  /**
   * An image resized along one axis after the other: x first, or y where that becomes much shorter, as newer versions of Pillow do.
   * @param {(left: number, top: number, width: number, height: number) => Uint8Array | Uint8ClampedArray} part RGBA of a part
   * @param {number} width @param {number} height @param {number} toWidth @param {number} toHeight @param {Preprocessing} how
   * @returns {Pixels}
   */
  function resized(part, width, height, toWidth, toHeight, how) {
    const [columns, rows] = [weightsOf(width, toWidth, how.interpolation), weightsOf(height, toHeight, how.interpolation)];
    const data = new Uint8Array(toWidth * toHeight * 3);
    const upright = how.upright && toHeight < height && height - toHeight > 2 * (width - toWidth);
    const step = Math.max(1, Math.trunc(2 ** 22 / (upright ? height : width))); // copies of a large image would not fit into memory
    if (upright) {
      const low = new Uint8Array(width * toHeight * 3);
      for (let left = 0; left < width; left += step) {
        const count = Math.min(step, width - left);
        const source = part(left, 0, count, height);
        for (const one of CHANNELS) along(source.subarray(one), rows, low.subarray(left * 3 + one), count, 4, count * 4, 3, width * 3);
      }
      for (const one of CHANNELS) along(low.subarray(one), columns, data.subarray(one), toHeight, width * 3, 3, toWidth * 3, 3);
    } else {
      const narrow = new Uint8Array(toWidth * height * 3);
      for (let top = 0; top < height; top += step) {
        const count = Math.min(step, height - top);
        const source = part(0, top, width, count);
        const out = narrow.subarray(top * toWidth * 3);
        for (const one of CHANNELS) along(source.subarray(one), columns, out.subarray(one), count, width * 4, 4, toWidth * 3, 3);
      }
      along(narrow, rows, data, toWidth * 3, 1, toWidth * 3, 1, toWidth * 3);
    }
    return { data, width: toWidth, height: toHeight };
  }

  /** Rounds halves to even, as Python does. @param {number} x */
  const rounded = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

  /**
   * An image resized and cropped to the network's input.
   * @param {(left: number, top: number, width: number, height: number) => Uint8Array | Uint8ClampedArray} part RGBA of a part
   * @param {number} width @param {number} height @param {Preprocessing} how
   * @returns {Pixels}
   */
  function fitted(part, width, height, how) {
    if (how.crop === null) return resized(part, width, height, how.width, how.height, how);
    const least = { height: rounded(how.height / how.crop), width: rounded(how.width / how.crop) };
    const [toWidth, toHeight] =
      least.height * width <= least.width * height
        ? [least.width, Math.max(how.height, Math.trunc((least.width * height) / width))]
        : [Math.max(how.width, Math.trunc((least.height * width) / height)), least.height];
    const whole = resized(part, width, height, toWidth, toHeight, how);
    const top = rounded((toHeight - how.height) / 2);
    const left = rounded((toWidth - how.width) / 2);
    const data = new Uint8Array(how.width * how.height * 3);
    for (let y = 0; y < how.height; y++) {
      const from = ((y + top) * toWidth + left) * 3;
      data.set(whole.data.subarray(from, from + how.width * 3), y * how.width * 3);
    }
    return { data, width: how.width, height: how.height };
  }

  // ------------------------------------------------------------------------------------------------------------- reading a file

  const SMALLEST = 8;
  const MOST_PIXELS = 178956970;

  /** Where a TIFF block keeps the orientation, and whether low bytes come first. @param {DataView} view @param {number} start */
  function orientationAt(view, start) {
    const low = view.getUint16(start) === 0x4949;
    const table = start + view.getUint32(start + 4, low);
    for (let index = 0; index < view.getUint16(table, low); index++)
      if (view.getUint16(table + 2 + 12 * index, low) === 0x0112) return { place: table + 10 + 12 * index, low };
    return null;
  }

  /**
   * A file in memory, and the orientation that is taken out of WebP: browsers turn JPEG and PNG upright, but not all turn WebP.
   * @param {Blob} file
   * @returns {Promise<[Blob, number]>}
   */
  async function oriented(file) {
    const view = new DataView(await file.arrayBuffer());
    const held = new Blob([view]);
    if (view.byteLength < 12 || view.getUint32(0) !== 0x52494646 || view.getUint32(8) !== 0x57454250) return [held, 1]; // RIFF, WEBP
    try {
      for (let at = 12; at + 8 <= view.byteLength; at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2)) {
        if (view.getUint32(at) !== 0x45584946) continue; // EXIF
        const start = view.getUint32(at + 8) === 0x45786966 ? at + 14 : at + 8; // some writers keep JPEG's "Exif" in front
        const found = orientationAt(view, start);
        if (!found) break;
        const turn = view.getUint16(found.place, found.low);
        view.setUint16(found.place, 1, found.low);
        return [new Blob([view]), turn];
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // cut off: no orientation
    }
    return [held, 1];
  }

  /** How an image of a size is turned upright, as a canvas transform. @param {number} turn @param {number} width @param {number} height */
  const turned = (turn, width, height) =>
    [
      [1, 0, 0, 1, 0, 0],
      [-1, 0, 0, 1, width, 0],
      [-1, 0, 0, -1, width, height],
      [1, 0, 0, -1, 0, height],
      [0, 1, 1, 0, 0, 0],
      [0, 1, -1, 0, height, 0],
      [0, -1, -1, 0, height, width],
      [0, -1, 1, 0, 0, width],
    ][turn >= 1 && turn <= 8 ? turn - 1 : 0];

  /**
   * RGBA of an image on white.
   * @param {ImageBitmap} image @param {number[]} transform @param {number} width @param {number} height
   */
  function onWhite(image, [a, b, c, d, e, f], width, height) {
    const canvas = new OffscreenCanvas(width, height);
    const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    pen.imageSmoothingEnabled = false;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.setTransform(a, b, c, d, e, f);
    pen.drawImage(image, 0, 0);
    return pen.getImageData(0, 0, width, height).data;
  }

  /**
   * A file as the network is fed it: turned upright by its EXIF tag, transparency on white, colour profiles left alone.
   * @param {Blob} given @param {Preprocessing} how
   * @returns {Promise<Pixels & {of: [number, number]}>} with width and height of the file
   */
  async function prepared(given, how) {
    const [file, turn] = await oriented(given);
    const asked = /** @type {ImageBitmapOptions} */ ({ colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none" });
    const image = await createImageBitmap(file, asked).catch(() => {
      throw new Error("this browser cannot read it as an image");
    });
    const [a, b, c, d, e, f] = turned(turn, image.width, image.height);
    const [width, height] = turn > 4 && turn <= 8 ? [image.height, image.width] : [image.width, image.height];
    if (Math.min(width, height) < SMALLEST) throw new Error(`${width} x ${height} pixels are too few (at least ${SMALLEST} a side)`);
    if (width * height > MOST_PIXELS) throw new Error(`${width} x ${height} pixels are too many`);
    const part = (/** @type {number} */ left, /** @type {number} */ top, /** @type {number} */ across, /** @type {number} */ down) =>
      onWhite(image, [a, b, c, d, e - left, f - top], across, down);
    try {
      return { ...fitted(part, width, height, how), of: [width, height] };
    } finally {
      image.close();
    }
  }

  /** Pixels as the network's input, planes of numbers in [0,1]; grey for a network of one channel. @param {Pixels} image @param {number} channels */
  function planes(image, channels) {
    const count = image.width * image.height;
    const made = new Float32Array(channels * count);
    const { data } = image;
    for (let at = 0; at < count; at++) {
      const place = 3 * at;
      if (channels === 1) made[at] = ((data[place] * 19595 + data[place + 1] * 38470 + data[place + 2] * 7471 + 0x8000) >> 16) / 255;
      else for (let one = 0; one < 3; one++) made[one * count + at] = data[place + one] / 255;
    }
    return made;
  }

  // ---------------------------------------------------------------------------------------------------------- running the network

  /** @type {any} */
  let ort;
  /** @type {any} */
  let session;
  /** @type {Preprocessing} */
  let how;
  /** @type {Map<number, Float32Array>} */
  const inputs = new Map();

  /** @param {Float32Array} values @param {string[]} wanted */
  async function run(values, wanted) {
    const shape = [1, how.channels, how.height, how.width];
    const found = await session.run({ images: new ort.Tensor("float32", values, shape) }, wanted);
    return Object.fromEntries(wanted.map((name) => [name, found[name].data.slice()]));
  }

  /** @type {Record<string, (asked: any) => Promise<any>>} */
  const answers = {
    async open({ runtime, wasm, model, preprocessing }) {
      how = preprocessing;
      ort = await import(URL.createObjectURL(new Blob([runtime], { type: "text/javascript" })));
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmBinary = wasm;
      ort.env.logLevel = "error";
      session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
      return {};
    },
    async read({ photo, file }) {
      const began = performance.now();
      const pixels = await prepared(file, how);
      const values = planes(pixels, how.channels);
      const between = performance.now();
      const found = await run(values, ["output", "means", "maxima"]);
      inputs.set(photo, values);
      return { ...found, pixels: pixels.data, of: pixels.of, times: [between - began, performance.now() - between] };
    },
    async maps({ photo, layer }) {
      return run(/** @type {Float32Array} */ (inputs.get(photo)), [`map:${layer}`]);
    },
    async forget({ photo }) {
      inputs.delete(photo);
      return {};
    },
    // for tests: the same pixels, and the network on given values
    async prepare({ file, preprocessing }) {
      return prepared(file, preprocessing);
    },
    async run({ values, wanted }) {
      return run(values, wanted);
    },
  };

  let queue = Promise.resolve();
  self.onmessage = ({ data }) => {
    queue = queue.then(async () => {
      try {
        self.postMessage({ id: data.id, answer: await answers[data.what](data) });
      } catch (error) {
        self.postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error) });
      }
    });
  };
};
