// The viewer of one image: slices of its maps, and what is known of a voxel or a region.
// EQUATIONS (name of a model: signal of parameters and variables) stands before this file. Text is only ever set as
// text, so that no name of a file or estimator is read as HTML.

const PLANES = [
  { name: "sagittal", across: 1, up: 2, letters: "PAIS" },
  { name: "coronal", across: 0, up: 2, letters: "LRIS" },
  { name: "axial", across: 0, up: 1, letters: "LRPA" },
];
const NOT_A_NUMBER = 65535,
  INFINITE = 65534,
  MINUS_INFINITE = 65533;
// Pink: no estimate. White: not determined by the data. As in the figures.
const NO_ESTIMATE = [255, 111, 174],
  UNDETERMINED = [255, 255, 255];
const MOST_CURVES = 1000; // voxels of a region whose curves are averaged
const FLICKER = 700; // ms

function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "rect", "text", "g", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function said(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value),
    text =
      size >= 1e5 || (size > 0 && size < 1e-3)
        ? value.toExponential(2)
        : size >= 1000
          ? value.toFixed(0)
          : String(Number(value.toPrecision(3)));
  return text.replace(/-/g, "−");
}

async function inflated(text) {
  const packed = atob(text),
    bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new DecompressionStream("gzip"),
    writer = stream.writable.getWriter(),
    reader = stream.readable.getReader();
  writer.write(bytes);
  writer.close();
  const pieces = [];
  for (let piece; !(piece = await reader.read()).done;) pieces.push(piece.value);
  const whole = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

// Values of the voxels: 16-bit codes, all low bytes first (see packed in viewer.py).
class Values {
  constructor(array) {
    Object.assign(this, array);
  }
  load() {
    return (this.loading ??= inflated(this.data).then((bytes) => {
      const n = bytes.length / 2;
      this.codes = new Uint16Array(n);
      for (let i = 0; i < n; i++) this.codes[i] = bytes[i] | (bytes[n + i] << 8);
      this.data = null;
    }));
  }
  at(voxel) {
    const code = this.codes[voxel];
    if (code >= MINUS_INFINITE) return code === NOT_A_NUMBER ? NaN : code === INFINITE ? Infinity : -Infinity;
    const value = this.offset + this.step * code;
    return this.wide ? Math.sinh(value) * this.wide : value;
  }
}

// Colours of the directions of an axis: red, green and blue from 0 to 1.
class Channels {
  constructor(map) {
    Object.assign(this, map, { channels: map.channels.map((array) => new Values(array)) });
  }
  async load() {
    await Promise.all(this.channels.map((channel) => channel.load()));
    this.codes = this.channels[0].codes;
  }
  at() {
    return NaN;
  }
  colour(voxel) {
    return this.channels.map((channel) => 255 * Math.max(channel.at(voxel), 0));
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) => {
  const middle = mean(values);
  return values.length > 1 ? Math.sqrt(values.reduce((s, v) => s + (v - middle) ** 2, 0) / (values.length - 1)) : NaN;
};
const median = (values) => (values.length ? [...values].sort((a, b) => a - b)[values.length >> 1] : NaN);

// A round number that is at least as large.
function rounded(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= size * 0.999);
}

function ticks(low, high, count) {
  const step = rounded((high - low) / count || 1),
    found = [];
  for (let t = Math.ceil(low / step - 1e-9); t * step <= high + 1e-9 * step; t++) found.push(t * step);
  return found;
}

class Viewer {
  constructor(root, content) {
    Object.assign(this, { root, content, voxel: content.size.map((n) => n >> 1), plane: content.axis, mode: "one" });
    this.shown = 0; // while it flickers: which layer
    this.flipped = this.log = this.single = this.drawing = false;
    this.outlined = true;
    this.region = this.path = null;
    this.mask = new Values(content.mask);
    this.reference = new Values(content.reference);
    for (const shell of content.shells) for (const key of ["mean", "spread"]) shell[key] = new Values(shell[key]);
    content.measurements = content.measurements.map((array) => new Values(array));
    for (const fit of content.fits) {
      fit.maps = fit.maps.map((map) => Object.assign(map.channels ? new Channels(map) : new Values(map), { fit }));
      fit.byKey = Object.fromEntries(fit.maps.map((map) => [map.key, map]));
    }
    const spacing = [0, 1, 2].map((a) => Math.hypot(...content.toMillimetres.slice(0, 3).map((row) => row[a])));
    const { slices, axis } = content;
    if (slices.length > 1) spacing[axis] *= (slices.at(-1) - slices[0]) / (slices.length - 1);
    this.spacing = spacing;
    this.scales = Object.fromEntries(
      Object.entries(content.colours).map(([name, digits]) => [name, this.scale(digits)]),
    );
  }

  scale(digits) {
    const stops = digits.match(/.{6}/g).map((d) => [0, 2, 4].map((i) => parseInt(d.slice(i, i + 2), 16)));
    const table = [];
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * (stops.length - 1),
        k = Math.min(Math.floor(at), stops.length - 2),
        part = at - k;
      table.push(stops[k].map((c, channel) => Math.round(c + part * (stops[k + 1][channel] - c))));
    }
    return table;
  }

  async start() {
    await Promise.all([this.mask.load(), this.reference.load()]);
    const n = this.mask.codes.length;
    this.place = new Int32Array(n);
    this.count = 0;
    for (let i = 0; i < n; i++) this.place[i] = this.mask.at(i) > 0.5 ? this.count++ : -1;
    this.layers = this.findLayers();
    const estimates = this.layers.filter(({ map }) => map?.parameter && !map.statistic && this.isListed(map));
    const first =
      this.layers.find((layer) => layer.coded === "axis") ??
      estimates.find((layer) => layer.map.parameter !== this.content.models[layer.map.fit.model]?.scale) ??
      estimates[0] ??
      this.layers[0];
    const alike = (layer) => layer !== first && layer.map?.fit.model === first.map?.fit.model;
    const second =
      this.layers.find((layer) => alike(layer) && layer.map?.key === first.map?.key) ?? estimates.find(alike);
    this.panes = [this.makePane(first), this.makePane(second ?? this.layers[0])];
    this.build();
    this.voxel = this.central();
    await this.panes[0].layer.values.load();
    this.draw();
    for (const values of this.everything()) await values.load();
    this.root.dataset.ready = "true";
    this.answer();
  }

  // Whether the report lists the parameter of a map: not the elements of a tensor, of which it tells what they mean.
  isListed(map) {
    return !map.fit.listed.length || map.fit.listed.includes(map.parameter);
  }

  *everything() {
    for (const { mean, spread } of this.content.shells) {
      yield mean;
      yield spread;
    }
    for (const fit of this.content.fits) yield* fit.maps;
    yield* this.content.measurements;
  }

  findLayers() {
    const { content } = this,
      layers = [];
    const add = (group, label, values, facts) =>
      layers.push({
        group,
        label,
        values,
        opacity: 1,
        threshold: 0,
        low: facts.limits?.[0],
        high: facts.limits?.[1],
        ...facts,
        initial: facts.limits,
      });
    add("Image", content.lowest, this.reference, {
      ...content.reference,
      colours: "gray",
      unit: "a.u.",
      whole: true,
    });
    for (const shell of content.shells) {
      add("Mean signal", shell.words, shell.mean, { limits: shell.limits, colours: "gray", unit: "a.u." });
    }
    for (const fit of content.fits) {
      const group = `${fit.model} · ${fit.estimator}`;
      for (const map of fit.maps) {
        const words = !map.parameter ? map.title : map.statistic ? `${map.parameter}: ${map.title}` : map.parameter;
        const { limits, colours, unit } = map;
        const coded = map.channels ? "axis" : ["status", "flags"].includes(map.key) && !map.parameter && map.key;
        const label = content.fits.length > 1 ? `${words} · ${fit.estimator}` : words;
        add(group, label, map, { limits, colours, unit, map, coded });
      }
    }
    return layers;
  }

  // The voxel of the mask nearest to the middle of the mask, on the middle slice.
  central() {
    const [nx, ny, nz] = this.content.size,
      sums = [0, 0, 0],
      inside = [];
    for (let k = 0; k < nz; k++)
      for (let j = 0; j < ny; j++)
        for (let i = 0; i < nx; i++) {
          if (this.placeOf([i, j, k]) < 0) continue;
          inside.push([i, j, k]);
          [i, j, k].forEach((v, a) => {
            sums[a] += v;
          });
        }
    const middle = sums.map((sum) => sum / inside.length);
    const distance = (voxel) => voxel.reduce((sum, v, a) => sum + ((v - middle[a]) * this.spacing[a]) ** 2, 0);
    return inside.reduce((best, voxel) => (distance(voxel) < distance(best) ? voxel : best), inside[0]);
  }

  placeOf([i, j, k]) {
    const [nx, ny, nz] = this.content.size;
    return i < 0 || j < 0 || k < 0 || i >= nx || j >= ny || k >= nz ? -1 : this.place[i + nx * (j + ny * k)];
  }

  // Indices of a voxel in the files, and its position.
  stored(voxel) {
    const { axis, slices, toStored, toMillimetres } = this.content;
    const whole = [...voxel.map((v, a) => (a === axis ? slices[v] : v)), 1];
    const through = (matrix) => matrix.slice(0, 3).map((row) => row.reduce((sum, m, a) => sum + m * whole[a], 0));
    return { index: through(toStored).map(Math.round), mm: through(toMillimetres) };
  }

  // ---- what stands on the page ----

  build() {
    const toggle = (label, key, title, get, set) => {
      const button = h(
        "button",
        {
          type: "button",
          title,
          "aria-pressed": get(),
          "data-key": key,
          onclick: () => {
            set();
            button.setAttribute("aria-pressed", get());
            this.draw();
            this.answer();
          },
        },
        label,
      );
      return button;
    };
    const choose = (label, options, value, change) => {
      const select = h(
        "select",
        { onchange: () => change(select.value) },
        ...options.map(([v, words]) => h("option", { value: v, selected: v === value }, words)),
      );
      return h("label", {}, label, select);
    };
    this.planeSelect = choose(
      "Plane",
      PLANES.map((p, i) => [String(i), p.name]),
      String(this.plane),
      (v) => this.turn(Number(v)),
    );
    const slider = h("input", { type: "range", min: 0, step: 1, oninput: () => this.moveTo(Number(slider.value)) });
    this.slider = slider;
    this.sliceWords = h("output");
    this.regionButton = toggle(
      "Draw a region",
      "r",
      "Draw around a region with the pointer (r)",
      () => this.drawing,
      () => {
        this.drawing = !this.drawing;
      },
    );
    this.buttons = [
      toggle(
        "Left is right",
        "n",
        "Radiological view: left is shown right (n)",
        () => this.flipped,
        () => {
          this.flipped = !this.flipped;
        },
      ),
      toggle(
        "Outline of the mask",
        "m",
        "(m)",
        () => this.outlined,
        () => {
          this.outlined = !this.outlined;
        },
      ),
      this.regionButton,
    ];
    const compare = choose(
      "Compare",
      [
        ["one", "one map"],
        ["two", "side by side"],
        ["flicker", "flickered"],
      ],
      "one",
      (v) => this.compare(v),
    );
    this.compareSelect = compare.querySelector("select");
    this.views = h("div", { class: "views" }, ...this.panes.map((pane) => pane.element));
    [this.told, this.toldBelow] = ["told", "told below"].map((name) =>
      h("div", { class: name, "aria-live": "polite" }),
    );
    this.halves = h("div", { class: "halves" }, this.views, this.told);
    this.root.replaceChildren(
      h(
        "div",
        { class: "controls" },
        this.planeSelect,
        h("label", { class: "grow" }, "Slice", slider),
        this.sliceWords,
        compare,
        ...this.buttons,
      ),
      this.halves,
      this.toldBelow,
      h(
        "p",
        { class: "note" },
        "Keys on a map: arrows move the cross, Page Up and Page Down the slice; x, y, z choose the plane, " +
          "n turns left and right, m the outline, f flickers, l the scale of the signal, r draws a region (or hold Shift).",
      ),
    );
    this.compare("one");
    new ResizeObserver(() => this.draw()).observe(this.views);
  }

  makePane(layer) {
    const pane = { layer };
    const groups = new Map();
    this.layers.forEach((l, i) => groups.set(l.group, [...(groups.get(l.group) ?? []), [l, i]]));
    const select = h(
      "select",
      { "aria-label": "Map", onchange: () => this.show(pane, this.layers[Number(select.value)]) },
      ...[...groups].map(([group, rows]) =>
        h(
          "optgroup",
          { label: group },
          ...rows.map(([l, i]) =>
            h("option", { value: i, selected: l === layer }, l.unit ? `${l.label} (${l.unit})` : l.label),
          ),
        ),
      ),
    );
    const canvas = h("canvas", { tabindex: 0, role: "img" });
    const field = (label, name) => {
      const input = h("input", {
        type: "number",
        step: "any",
        onchange: () => {
          const value = Number.parseFloat(input.value);
          pane.layer[name] = Number.isFinite(value) ? value : (pane.layer.initial?.[name === "low" ? 0 : 1] ?? 0);
          this.draw();
        },
      });
      pane[name] = input;
      return h("label", {}, label, input);
    };
    const colours = h(
      "select",
      {
        onchange: () => {
          pane.layer.colours = colours.value;
          this.draw();
        },
      },
      ...Object.keys(this.scales).map((name) => h("option", {}, name)),
    );
    const opacity = h("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.05,
      value: 1,
      oninput: () => {
        pane.layer.opacity = Number(opacity.value);
        this.draw();
      },
    });
    const reset = h(
      "button",
      {
        type: "button",
        onclick: () => {
          [pane.layer.low, pane.layer.high] = pane.layer.initial;
          pane.layer.threshold = 0;
          pane.layer.opacity = 1;
          this.draw();
        },
      },
      "Reset",
    );
    Object.assign(pane, {
      select,
      canvas,
      colours,
      opacity,
      bar: h("i"),
      ends: h("p", { class: "ends" }),
      name: h("span", { class: "which" }),
    });
    canvas.addEventListener("pointerdown", (event) => this.pressed(pane, event));
    canvas.addEventListener("pointermove", (event) => this.moved(pane, event));
    canvas.addEventListener("pointerup", () => this.released());
    canvas.addEventListener("keydown", (event) => this.key(event));
    pane.scaleBox = h("div", { class: "scale" }, pane.bar, pane.ends);
    pane.element = h(
      "div",
      { class: "pane" },
      h("div", { class: "row" }, select, pane.name),
      canvas,
      pane.scaleBox,
      h(
        "details",
        { class: "window" },
        h("summary", {}, "Window, threshold, colours"),
        h(
          "div",
          { class: "row" },
          field("From", "low"),
          field("to", "high"),
          field("Hide below", "threshold"),
          h("label", {}, "Colours", colours),
          h("label", {}, "Opacity", opacity),
          reset,
        ),
      ),
    );
    return pane;
  }

  // ---- what is done ----

  async show(pane, layer) {
    pane.layer = layer;
    pane.select.value = this.layers.indexOf(layer);
    await layer.values.load();
    this.draw();
    if (this.region) this.answer();
  }

  compare(mode) {
    this.mode = this.compareSelect.value = mode;
    clearInterval(this.timer);
    this.shown = 0;
    this.panes[1].layer.values.load().then(() => this.draw());
    this.panes[1].element.hidden = mode === "one";
    this.halves.classList.toggle("two", mode === "two");
    for (const part of ["canvas", "scaleBox"]) this.panes[1][part].hidden = mode !== "two";
    if (mode === "flicker")
      this.timer = setInterval(() => {
        this.shown = 1 - this.shown;
        this.draw();
      }, FLICKER);
    if (this.panes[0].layer.values.codes) this.draw();
  }

  turn(plane) {
    this.plane = plane;
    this.planeSelect.querySelector("select").value = plane;
    this.region = null;
    this.draw();
    this.answer();
  }

  moveTo(index) {
    this.voxel[this.plane] = Math.min(Math.max(index, 0), this.content.size[this.plane] - 1);
    this.region = null;
    this.draw();
    this.answer();
  }

  key(event) {
    const { across, up } = PLANES[this.plane],
      step = (axis, by) => {
        this.voxel[axis] = Math.min(Math.max(this.voxel[axis] + by, 0), this.content.size[axis] - 1);
        this.region = null;
        this.draw();
        this.answer();
      };
    const sign = this.flipped && across === 0 ? -1 : 1;
    const acts = {
      ArrowLeft: () => step(across, -sign),
      ArrowRight: () => step(across, sign),
      ArrowUp: () => step(up, 1),
      ArrowDown: () => step(up, -1),
      PageUp: () => step(this.plane, 1),
      PageDown: () => step(this.plane, -1),
      x: () => this.turn(0),
      y: () => this.turn(1),
      z: () => this.turn(2),
      f: () => this.compare(this.mode === "flicker" ? "one" : "flicker"),
      l: () => {
        this.log = !this.log;
        this.answer();
      },
    };
    const act = acts[event.key] ?? (() => this.buttons.find((b) => b.dataset.key === event.key)?.click());
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (acts[event.key] || this.buttons.some((b) => b.dataset.key === event.key)) event.preventDefault();
    act();
  }

  // The pixel of the picture below the pointer, as (across, up) in voxels.
  pointed(pane, event) {
    const { across, up } = PLANES[this.plane],
      box = pane.canvas.getBoundingClientRect(),
      [w, t] = [this.content.size[across], this.content.size[up]];
    let x = ((event.clientX - box.left) / box.width) * w;
    if (this.flipped && across === 0) x = w - x;
    return [x, t - ((event.clientY - box.top) / box.height) * t];
  }

  pressed(pane, event) {
    pane.canvas.setPointerCapture?.(event.pointerId);
    this.down = true;
    if (this.drawing || event.shiftKey) {
      this.path = [this.pointed(pane, event)];
      this.region = null;
    } else this.pick(pane, event);
  }

  moved(pane, event) {
    if (!this.down) return;
    if (this.path) {
      this.path.push(this.pointed(pane, event));
      this.draw();
    } else this.pick(pane, event);
  }

  released() {
    this.down = false;
    if (!this.path) return;
    const { across, up } = PLANES[this.plane],
      path = this.path,
      voxels = [];
    for (let j = 0; j < this.content.size[up]; j++)
      for (let i = 0; i < this.content.size[across]; i++) {
        if (!within(path, i + 0.5, j + 0.5)) continue;
        const voxel = [...this.voxel];
        voxel[across] = i;
        voxel[up] = j;
        const place = this.placeOf(voxel);
        if (place >= 0) voxels.push(place);
      }
    this.region = voxels.length ? { path, voxels } : null;
    this.path = null;
    this.draw();
    this.answer();
  }

  pick(pane, event) {
    const { across, up } = PLANES[this.plane],
      [x, y] = this.pointed(pane, event);
    this.voxel[across] = Math.min(Math.max(Math.floor(x), 0), this.content.size[across] - 1);
    this.voxel[up] = Math.min(Math.max(Math.floor(y), 0), this.content.size[up] - 1);
    this.region = null;
    this.draw();
    this.answer();
  }

  // ---- pictures ----

  draw() {
    const n = this.content.size[this.plane];
    this.slider.max = n - 1;
    this.slider.value = this.voxel[this.plane];
    this.sliceWords.value = `${this.voxel[this.plane] + 1} of ${n}`;
    const layer = this.panes[this.mode === "flicker" ? this.shown : 0].layer;
    this.drawPane(this.panes[0], layer);
    if (this.mode === "two") this.drawPane(this.panes[1], this.panes[1].layer);
  }

  drawPane(pane, layer) {
    if (!layer.values.codes) return;
    const { across, up, letters, name } = PLANES[this.plane],
      { size } = this.content,
      [w, t] = [size[across], size[up]];
    const picture = new ImageData(w, t),
      table = this.scales[layer.colours] ?? this.scales.gray,
      grey = this.scales.gray;
    const [dark, bright] = this.content.reference.limits,
      voxel = [...this.voxel];
    const flip = this.flipped && across === 0;
    for (let j = 0; j < t; j++)
      for (let i = 0; i < w; i++) {
        voxel[across] = flip ? w - 1 - i : i;
        voxel[up] = t - 1 - j;
        const whole = voxel[0] + size[0] * (voxel[1] + size[1] * voxel[2]);
        const below = grey[tone(this.reference.at(whole), dark, bright)];
        const place = layer.whole ? whole : this.place[whole];
        let colour = below;
        if (place >= 0) {
          const over = layer.values.colour?.(place) ?? this.colour(layer, layer.values.at(place), table);
          if (over)
            colour = layer.opacity < 1 ? over.map((c, k) => c * layer.opacity + below[k] * (1 - layer.opacity)) : over;
        }
        picture.data.set([...colour, 255], 4 * (i + w * j));
      }
    const { canvas } = pane,
      room = canvas.parentElement.clientWidth || 400;
    const millimetres = [w * this.spacing[across], t * this.spacing[up]];
    const factor = Math.min(room / millimetres[0], Math.max(420, room) / millimetres[1], 12);
    const [width, height] = millimetres.map((m) => Math.max(Math.round(m * factor), 8)),
      ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    const small = h("canvas", { width: w, height: t });
    small.getContext("2d").putImageData(picture, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.scale(ratio, ratio);
    context.drawImage(small, 0, 0, width, height);
    const cell = [width / w, height / t],
      X = (x) => (flip ? w - x : x) * cell[0],
      Y = (y) => height - y * cell[1];
    if (this.outlined) this.outline(context, X, Y);
    const path = this.path ?? this.region?.path;
    if (path) {
      context.beginPath();
      path.forEach(([x, y]) => context.lineTo(X(x), Y(y)));
      context.closePath();
      stroke(context, "#fff", 2);
    } else this.cross(context, X, Y, width, height);
    context.font = "600 13px system-ui, sans-serif";
    const shown = flip ? [letters[1], letters[0]] : [letters[0], letters[1]];
    const write = (text, x, y, align) => {
      context.textAlign = align;
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.strokeText(text, x, y);
      context.fillStyle = "#fff";
      context.fillText(text, x, y);
    };
    write(shown[0], 4, height / 2 + 5, "left");
    write(shown[1], width - 4, height / 2 + 5, "right");
    write(letters[2], width / 2, height - 5, "center");
    write(letters[3], width / 2, 15, "center");
    canvas.setAttribute("aria-label", `${layer.group}, ${layer.label}: ${name} slice ${this.sliceWords.value}`);
    pane.name.textContent = this.mode === "flicker" ? `${layer.group}: ${layer.label}` : "";
    this.legend(pane, layer, table);
  }

  colour(layer, value, table) {
    if (layer.coded === "status") return hex(this.content.status[Math.round(value)]?.colour ?? "#000000");
    if (layer.coded === "flags")
      return Math.round(value) ? table[Math.min(80 + 60 * bits(Math.round(value)), 255)] : null;
    if (Number.isNaN(value)) return NO_ESTIMATE;
    if (!Number.isFinite(value)) return UNDETERMINED;
    if (layer.threshold && Math.abs(value) < layer.threshold) return null;
    return table[tone(value, layer.low, layer.high)];
  }

  legend(pane, layer, table) {
    const { coded } = layer;
    pane.bar.style.background = coded
      ? "none"
      : `linear-gradient(to right, ${table
          .filter((_, i) => i % 15 === 0)
          .map((c) => `rgb(${c})`)
          .join()})`;
    if (coded === "status") {
      const found = new Set(layer.values.codes.map((_, v) => Math.round(layer.values.at(v))));
      pane.ends.replaceChildren(
        ...[...found]
          .sort((a, b) => a - b)
          .map((code) =>
            h("span", {}, swatch(this.content.status[code]?.colour), this.content.status[code]?.name ?? String(code)),
          ),
      );
    } else if (coded === "axis") pane.ends.replaceChildren(h("span", {}, layer.map.words));
    else if (coded) pane.ends.replaceChildren(h("span", {}, "coloured where a flag is raised; the darker, the more"));
    else
      pane.ends.replaceChildren(
        h("span", {}, said(layer.low)),
        h("span", {}, layer.unit),
        h("span", {}, said(layer.high)),
      );
    for (const name of ["low", "high", "threshold"])
      if (document.activeElement !== pane[name]) pane[name].value = layer[name] ?? "";
    pane.colours.value = layer.colours;
    pane.opacity.value = layer.opacity;
  }

  outline(context, X, Y) {
    const { across, up } = PLANES[this.plane],
      voxel = [...this.voxel];
    const inside = (i, j) => {
      voxel[across] = i;
      voxel[up] = j;
      return this.placeOf(voxel) >= 0;
    };
    context.beginPath();
    for (let j = 0; j <= this.content.size[up]; j++)
      for (let i = 0; i <= this.content.size[across]; i++) {
        if (inside(i, j) !== inside(i - 1, j)) {
          context.moveTo(X(i), Y(j));
          context.lineTo(X(i), Y(j + 1));
        }
        if (inside(i, j) !== inside(i, j - 1)) {
          context.moveTo(X(i), Y(j));
          context.lineTo(X(i + 1), Y(j));
        }
      }
    context.strokeStyle = "#ffb000";
    context.lineWidth = 1;
    context.stroke();
  }

  cross(context, X, Y, width, height) {
    const { across, up } = PLANES[this.plane],
      [x, y] = [this.voxel[across], this.voxel[up]];
    const [left, right] = [X(x), X(x + 1)].sort((a, b) => a - b),
      [top, bottom] = [Y(y + 1), Y(y)];
    context.beginPath();
    for (const [x1, y1, x2, y2] of [
      [0, (top + bottom) / 2, left - 4, (top + bottom) / 2],
      [right + 4, (top + bottom) / 2, width, (top + bottom) / 2],
      [(left + right) / 2, 0, (left + right) / 2, top - 4],
      [(left + right) / 2, bottom + 4, (left + right) / 2, height],
    ]) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    context.rect(left, top, right - left, bottom - top);
    stroke(context, "#fff", 1);
  }

  // ---- what is told ----

  answer() {
    if (!this.root.dataset.ready) return;
    const place = this.placeOf(this.voxel),
      { index, mm } = this.stored(this.voxel);
    const where = `Voxel (${index.join(", ")}) at ${["x", "y", "z"].map((a, i) => `${a} = ${said(mm[i])}`).join(", ")} mm`;
    if (this.region) {
      const n = this.region.voxels.length,
        plane = PLANES[this.plane].name;
      this.tell(this.region.voxels, `Region of ${n} voxel${n > 1 ? "s" : ""}, ${plane} slice ${this.sliceWords.value}`);
    } else if (place >= 0) this.tell([place], where);
    else {
      this.told.replaceChildren(h("h4", {}, where), h("p", {}, "Outside the mask: nothing was fitted here."));
      this.toldBelow.replaceChildren();
    }
  }

  tell(voxels, where) {
    const one = voxels.length === 1,
      shells = this.content.shells;
    const every = voxels.filter((_, i) => i % Math.ceil(voxels.length / MOST_CURVES) === 0);
    const finite = (values) => values.filter(Number.isFinite);
    const signal = shells.map((s) => mean(finite(every.map((v) => s.mean.at(v)))));
    const spread = shells.map((s) =>
      one ? s.spread.at(voxels[0]) : deviation(finite(every.map((v) => s.mean.at(v)))),
    );
    const fits = this.content.fits.map((fit) => ({ fit, ...this.curve(fit, every) }));
    const points = one
      ? shells.some((s) => s.measurements > 1)
        ? "Points: mean over directions and repeats, with their standard deviation."
        : "Points: what was measured."
      : `Points: mean over the region, with the standard deviation of its voxels. Curves: mean of those of ${every.length} voxels.`;
    this.told.replaceChildren(
      h("h4", {}, where),
      this.plot(signal, spread, fits, one ? voxels[0] : -1),
      h("p", { class: "note" }, fits.some((f) => f.predicted) ? `${points} Below: measured minus curve.` : points),
    );
    const parts = [
      this.parameters(voxels),
      ...(one ? this.words(voxels[0]) : [this.histogram(voxels)]),
      this.numbers(signal, spread, fits),
    ];
    this.toldBelow.replaceChildren(...parts.filter(Boolean));
  }

  // Mean over some voxels of the curve of a fit, at the shells and on a fine grid.
  curve(fit, voxels) {
    const model = this.content.models[fit.model],
      equation = EQUATIONS[fit.model];
    if (!model || !equation || model.parameters.some((name) => !fit.byKey[name])) return {};
    const parameters = voxels
      .map((v) => model.parameters.map((name) => fit.byKey[name].at(v)))
      .filter((p) => p.every(Number.isFinite));
    if (!parameters.length) return {};
    const at = (variables) => mean(parameters.map((p) => equation(p, variables)));
    let predicted = model.design.map(at);
    if (model.byDirection) {
      const rows = this.content.signal.rows;
      predicted = this.content.shells.map((_, k) => mean(predicted.filter((_, i) => rows[i] === k)));
    }
    const step = voxels.length > 1 ? 5 : 1,
      keep = (_, i, all) => i % step === 0 || i === all.length - 1;
    return {
      predicted,
      used: model.used,
      fine: model.curve && { x: model.curve.x.filter(keep), y: model.curve.design.filter(keep).map(at) },
    };
  }

  plot(signal, spread, fits, voxel) {
    const { x, label, measuredX } = this.content.signal,
      W = 560,
      T = 250,
      B = 330,
      L = 56,
      R = W - 10;
    const single = this.single && voxel >= 0 ? this.content.measurements.map((m) => m.at(voxel)) : [];
    const all = [
      ...signal.map((s, i) => s + (spread[i] || 0)),
      ...signal.map((s, i) => s - (spread[i] || 0)),
      ...single,
      ...fits.flatMap((f) => f.fine?.y ?? f.predicted ?? []),
    ].filter((v) => Number.isFinite(v) && (!this.log || v > 0));
    let low = this.log ? Math.min(...all) : Math.min(0, ...all),
      high = Math.max(...all);
    if (!(high > low)) [low, high] = [low - 1 || -1, low + 1];
    const most = Math.max(...x) || 1,
      scale = this.log ? Math.log : (v) => v;
    const X = (v) => L + ((R - L) * v) / (most * 1.04) + 6,
      Y = (v) => T - ((T - 14) * (scale(v) - scale(low))) / (scale(high) - scale(low));
    const svg = h("svg", {
      viewBox: `0 0 ${W} 372`,
      class: "plot",
      role: "img",
      "aria-label": "Measured signal and fitted curves; the numbers stand in the table below",
    });
    const line = (d, colour, more = {}) =>
      svg.append(h("path", { d, fill: "none", stroke: colour, "stroke-width": 1.8, ...more }));
    const text = (words, tx, ty, anchor = "end", more = {}) =>
      svg.append(h("text", { x: tx, y: ty, "text-anchor": anchor, ...more }, words));
    const powers = this.log ? ticks(Math.log10(low), Math.log10(high), 4).map((p) => 10 ** p) : ticks(low, high, 5);
    for (const t of powers) {
      line(`M${L} ${Y(t)}H${R}`, "var(--line)", { "stroke-width": 1 });
      text(said(t), L - 6, Y(t) + 4);
    }
    for (const t of ticks(0, most, 6)) {
      text(said(t), X(t), B + 18, "middle");
      line(`M${X(t)} ${B}v4`, "var(--quiet)", { "stroke-width": 1 });
    }
    text(label, R, 368);
    text("signal", 4, 10, "start");
    fits.forEach(({ fit, fine, predicted }) => {
      if (fine)
        line(
          fine.x
            .map((v, i) => [v, fine.y[i]])
            .filter(([, y]) => !this.log || y > 0)
            .map(([v, y], i) => `${i ? "L" : "M"}${X(v)} ${Y(y)}`)
            .join(""),
          `var(--${colourName(fit.colour)}, ${fit.colour})`,
        );
      else if (predicted) predicted.forEach((y, i) => line(`M${X(x[i]) - 7} ${Y(y)}h14`, fit.colour));
    });
    single.forEach((y, i) => {
      if (Number.isFinite(y) && (!this.log || y > 0))
        svg.append(h("circle", { cx: X(measuredX[i]), cy: Y(y), r: 1.6, class: "single" }));
    });
    signal.forEach((y, i) => {
      if (!Number.isFinite(y) || (this.log && y <= 0)) return;
      if (Number.isFinite(spread[i]))
        line(
          `M${X(x[i])} ${Y(Math.max(y - spread[i], this.log ? low : -Infinity))}V${Y(y + spread[i])}`,
          "var(--quiet)",
          { "stroke-width": 1.2 },
        );
      svg.append(
        h(
          "circle",
          { cx: X(x[i]), cy: Y(y), r: 3.6, class: fits.some((f) => f.used && !f.used[i]) ? "left-out" : "measured" },
          h("title", {}, `${this.content.shells[i].words}: ${said(y)}`),
        ),
      );
    });
    const rest = fits
      .filter((f) => f.predicted)
      .map((f) => ({ colour: f.fit.colour, values: f.predicted.map((p, i) => signal[i] - p) }));
    // Residuals far below the error of a mean are not drawn as if they were large.
    const errors = spread.map((s, i) => s / Math.sqrt(this.content.shells[i].measurements));
    const shown = [...rest.flatMap((r) => r.values), ...errors].filter(Number.isFinite).map(Math.abs);
    const size = rounded(Math.max(...shown, 1e-12)),
      M = (T + B) / 2 + 10,
      span = (B - T) / 2 - 12;
    if (rest.length) {
      line(`M${L} ${M}H${R}`, "var(--quiet)", { "stroke-width": 1 });
      text(`±${said(size)}`, L - 6, M + 4);
    }
    rest.forEach(({ colour, values }, f) =>
      values.forEach((v, i) => {
        if (Number.isFinite(v))
          svg.append(
            h("circle", {
              cx: X(x[i]) + (f - (rest.length - 1) / 2) * 5,
              cy: M - (v / size) * span,
              r: 2.6,
              fill: `var(--${colourName(colour)}, ${colour})`,
            }),
          );
      }),
    );
    const log = h(
      "button",
      {
        type: "button",
        "aria-pressed": this.log,
        onclick: () => {
          this.log = !this.log;
          this.answer();
        },
      },
      "Logarithmic",
    );
    const repeats =
      this.content.measurements.length > this.content.shells.length && voxel >= 0
        ? h(
            "button",
            {
              type: "button",
              "aria-pressed": this.single,
              onclick: () => {
                this.single = !this.single;
                this.answer();
              },
            },
            "Single measurements",
          )
        : null;
    const key = h(
      "p",
      { class: "key-words" },
      ...fits.map(({ fit, predicted }) =>
        h("span", {}, swatch(fit.colour), `${fit.model} · ${fit.estimator}${predicted ? "" : " (no curve)"}`),
      ),
    );
    return h("div", {}, h("div", { class: "row" }, key, log, repeats), svg);
  }

  parameters(voxels) {
    const one = voxels.length === 1,
      rows = [],
      columns = one
        ? [
            ["sd", "SD"],
            ["expectedsd", "Expected SD"],
            ["q025", "95 % interval"],
            ["crb", "Floor"],
            ["bias", "Bias"],
            ["response", "Response"],
          ]
        : [
            ["sd", "SD of a voxel"],
            ["crb", "Floor of a voxel"],
            ["bias", "Bias"],
            ["response", "Response"],
          ];
    const known = columns.filter(([key]) =>
      this.content.fits.some((fit) => fit.maps.some((map) => map.statistic === key)),
    );
    const cell = (value, words = said(value)) => h("td", { class: "n", "data-value": value }, words);
    const interval = (low, high) =>
      cell(low, Number.isNaN(low) && Number.isNaN(high) ? said(low) : `${said(low)} to ${said(high)}`);
    const models = [...new Set(this.content.fits.map((fit) => fit.model))];
    for (const name of models) {
      const fits = this.content.fits.filter((fit) => fit.model === name);
      for (const map of fits[0].maps.filter((m) => m.parameter && !m.statistic && !m.channels && this.isListed(m))) {
        fits.forEach((fit, i) => {
          const own = fit.byKey[map.key];
          if (!own) return;
          const typical = (key) => {
            const found = fit.byKey[`${map.key}_${key}`];
            return found ? median(voxels.map((v) => found.at(v)).filter((v) => !Number.isNaN(v))) : NaN;
          };
          const values = voxels.map((v) => own.at(v)).filter(Number.isFinite);
          const tell = (key) =>
            key === "q025" && fit.byKey[`${map.key}_q025`]
              ? interval(typical("q025"), typical("q975"))
              : cell(typical(key));
          rows.push(
            h(
              "tr",
              { "data-fit": `${fit.model} ${fit.estimator}`, "data-parameter": map.key },
              i === 0
                ? h(
                    "th",
                    { scope: "rowgroup", rowspan: fits.length },
                    map.parameter,
                    map.unit ? h("span", { class: "unit" }, ` ${map.unit}`) : null,
                  )
                : null,
              h("th", { scope: "row" }, swatch(fit.colour), fit.estimator),
              cell(one ? own.at(voxels[0]) : mean(values)),
              one ? null : cell(deviation(values)),
              ...known.map(([key]) => tell(key)),
            ),
          );
        });
      }
    }
    const head = [
      "Parameter",
      "Estimator",
      one ? "Value" : "Mean",
      ...(one ? [] : ["SD over voxels"]),
      ...known.map(([, words]) => words),
    ];
    return rows.length
      ? h(
          "div",
          { class: "wide" },
          h(
            "table",
            { class: "compared" },
            h(
              "thead",
              {},
              h("tr", {}, ...head.map((words, i) => h("th", { scope: "col", class: i > 1 ? "n" : null }, words))),
            ),
            h("tbody", {}, ...rows),
          ),
        )
      : null;
  }

  words(voxel) {
    const { status, flags } = this.content;
    return this.content.fits.map((fit) => {
      const code = fit.byKey.status ? Math.round(fit.byKey.status.at(voxel)) : null;
      const raised = fit.byKey.flags ? Math.round(fit.byKey.flags.at(voxel)) : 0;
      const doubts = Object.entries(flags).filter(([bit]) => raised & Number(bit));
      const errors = fit.maps.filter((map) => map.statistic === "expectedsd");
      const unknown = errors.length && errors.every((map) => Number.isNaN(map.at(voxel)));
      const silent = unknown ? "; its errors are not known" : "; no flag is raised";
      return h(
        "div",
        { class: "verdict" },
        h(
          "p",
          {},
          swatch(fit.colour),
          h("strong", {}, `${fit.model} · ${fit.estimator}`),
          `: ${status[code]?.words ?? "no status"}${fit.byKey.flags && !doubts.length ? silent : ""}.`,
        ),
        doubts.length
          ? h("ul", {}, ...doubts.map(([, flag]) => h("li", {}, h("strong", {}, flag.name), `: ${flag.words}.`)))
          : null,
      );
    });
  }

  histogram(voxels) {
    const { layer } = this.panes[0],
      { map } = layer;
    if (layer.whole || layer.coded) return null;
    const same = map
      ? this.content.fits
          .filter((fit) => fit.model === map.fit.model && fit.byKey[map.key])
          .map((fit) => [fit.colour, fit.byKey[map.key], fit.estimator])
      : [["var(--ink)", layer.values, ""]];
    const W = 560,
      T = 120,
      bins = 24,
      low = layer.low,
      high = layer.high;
    const counted = same.map(([colour, values, name]) => {
      const counts = new Array(bins).fill(0);
      for (const v of voxels) {
        const value = values.at(v);
        if (Number.isFinite(value))
          counts[Math.min(Math.max(Math.floor(((value - low) / (high - low)) * bins), 0), bins - 1)]++;
      }
      return { colour, counts, name };
    });
    const most = Math.max(...counted.flatMap((c) => c.counts), 1),
      X = (b) => 8 + (b / bins) * (W - 16),
      Y = (n) => T - (n / most) * (T - 12);
    const svg = h("svg", {
      viewBox: `0 0 ${W} 142`,
      class: "plot",
      role: "img",
      "aria-label": `Distribution of ${layer.label} over the region`,
    });
    for (const { colour, counts } of counted)
      svg.append(
        h("path", {
          d: counts.map((n, b) => `${b ? "L" : "M"}${X(b)} ${Y(n)}L${X(b + 1)} ${Y(n)}`).join(""),
          fill: "none",
          stroke: `var(--${colourName(colour)}, ${colour})`,
          "stroke-width": 1.8,
        }),
      );
    svg.append(
      h("path", { d: `M8 ${T}H${W - 8}`, stroke: "var(--quiet)" }),
      h("text", { x: 8, y: 138 }, said(low)),
      h("text", { x: W - 8, y: 138, "text-anchor": "end" }, said(high)),
      h("text", { x: W / 2, y: 138, "text-anchor": "middle" }, `${layer.label}${layer.unit ? ` (${layer.unit})` : ""}`),
    );
    return h(
      "div",
      {},
      h("p", { class: "note" }, "Distribution over the region; values beyond the window in the last bins."),
      svg,
    );
  }

  numbers(signal, spread, fits) {
    const cell = (value) => h("td", { class: "n", "data-value": value ?? NaN }, said(value ?? NaN));
    const rows = this.content.shells.map((shell, i) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, shell.words),
        h("td", { class: "n" }, String(shell.measurements)),
        cell(signal[i]),
        cell(spread[i]),
        ...fits.map((f) => cell(f.predicted?.[i])),
      ),
    );
    const head = ["Measured", "n", "Mean", "SD", ...fits.map(({ fit }) => `${fit.model} · ${fit.estimator}`)];
    return h(
      "details",
      { class: "signal-table" },
      h("summary", {}, "Numbers of the plot"),
      h(
        "div",
        { class: "wide" },
        h(
          "table",
          { class: "compared" },
          h(
            "thead",
            {},
            h("tr", {}, ...head.map((words, i) => h("th", { scope: "col", class: i ? "n" : null }, words))),
          ),
          h("tbody", {}, ...rows),
        ),
      ),
    );
  }
}

const tone = (value, low, high) => Math.min(Math.max(Math.round((255 * (value - low)) / (high - low || 1)), 0), 255);
const hex = (digits) => [1, 3, 5].map((i) => parseInt(digits.slice(i, i + 2), 16));
const bits = (code) => code.toString(2).replace(/0/g, "").length;
const colourName = (colour) => `line-${colour.replace("#", "")}`; // dark mode gives the darkest another colour
function swatch(colour) {
  const found = h("i", { class: "swatch" });
  found.style.background = `var(--${colourName(colour)}, ${colour})`;
  return found;
}
function stroke(context, colour, width) {
  context.lineWidth = width + 2;
  context.strokeStyle = "rgba(0, 0, 0, .6)";
  context.stroke();
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke();
}
// Whether a point lies in a polygon.
function within(path, x, y) {
  let inside = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [[x1, y1], [x2, y2]] = [path[i], path[j]];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}

// Pictures of a figure that take turns in one place: the second of every pair appears on top of the first.
function takeTurns(figure) {
  const frame = figure.querySelector("div"),
    picture = frame.querySelector("img");
  let timer = 0;
  const covers = JSON.parse(figure.dataset.turns).map(([[left, top, width, height], [x, y]]) => {
    const cover = h("div", { class: "cover", hidden: true });
    const percent = (part) => `${100 * part}%`;
    Object.assign(cover.style, {
      left: percent(left),
      top: percent(top),
      width: percent(width),
      height: percent(height),
    });
    cover.style.background = `url(${picture.src}) ${percent(x / (1 - width))} ${percent(y / (1 - height))}`;
    cover.style.backgroundSize = `${percent(1 / width)} ${percent(1 / height)}`;
    return cover;
  });
  const button = h(
    "button",
    {
      type: "button",
      "aria-pressed": false,
      onclick: () => {
        const flickers = timer !== 0;
        clearInterval(timer);
        timer = flickers
          ? 0
          : setInterval(
              () =>
                covers.forEach((c) => {
                  c.hidden = !c.hidden;
                }),
              FLICKER,
            );
        covers.forEach((cover) => {
          cover.hidden = flickers;
        });
        button.setAttribute("aria-pressed", String(!flickers));
      },
    },
    "Flicker before and after",
  );
  const place = h("div", { class: "turns" });
  picture.replaceWith(place);
  place.append(picture, ...covers);
  figure.prepend(button);
}

async function start() {
  document.querySelectorAll("figure[data-turns]").forEach(takeTurns);
  if (typeof DecompressionStream === "undefined") return; // what stands there says so
  for (const root of document.querySelectorAll(".viewer")) {
    const content = JSON.parse(document.getElementById(root.dataset.voxels).textContent);
    await new Viewer(root, content).start();
  }
}
start();
