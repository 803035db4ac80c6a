// <sln-train>: trains a small network on the digits in the page. live.py makes its HTML, which stands before
// this script. tests/ui/test_train.py compares losses, weights, labels and orders with torch's.
"use strict";
{
  // 64-128-10, ReLU, SGD with momentum, target y + sigma z. pixels: (64, N), labels: (N,), bytes; the first
  // `train` images are trained on, the others tested. A worker gets this text: it uses no name from outside.
  function learner(pixels, labels, { sigma, rate, seed, train }) {
    const [N, D, H, C, B] = [labels.length, 64, 128, 10, 32]; // images, pixels, hidden, classes, batch
    const [LR, MOMENTUM, ALPHA] = [0.01, 0.9, 0.998];

    const uniform = (stream) => { // numbers in [0, 1): sfc32, from Doty-Humphrey's PractRand
      let [a, b, c, d] = [seed, stream, 0, 1];
      const next = () => {
        const sum = (a + b + d) | 0;
        d = (d + 1) | 0;
        a = b ^ (b >>> 9);
        b = (c + (c << 3)) | 0;
        c = (((c << 21) | (c >>> 11)) + sum) | 0;
        return (sum >>> 0) / 2 ** 32;
      };
      for (let k = 0; k < 15; k += 1) next();
      return next;
    };
    const [forLabels, forWeights, forOrder, forNoise] = [1, 2, 3, 4].map(uniform);
    const normal = () => Math.sqrt(-2 * Math.log(1 - forNoise())) * Math.cos(2 * Math.PI * forNoise());
    const range = (count, first = 0) => Int32Array.from({ length: count }, (_, k) => first + k);
    const shuffle = (rows, random) => {
      for (let k = rows.length - 1; k > 0; k -= 1) {
        const other = Math.floor(random() * (k + 1));
        [rows[k], rows[other]] = [rows[other], rows[k]];
      }
      return rows;
    };

    // images (N, D): pixels in [0, 1] less the mean over training; given labels, a share `rate` of them wrong
    const x = new Float64Array(N * D).map((_, k) => pixels[(k % D) * N + Math.floor(k / D)] / 16);
    const mean = x.subarray(0, train * D).reduce((sum, pixel) => sum + pixel) / (train * D);
    x.forEach((pixel, k) => { x[k] = pixel - mean; });
    const given = labels.slice();
    for (const row of shuffle(range(train), forLabels).subarray(0, Math.floor(rate * train + 0.5))) {
      given[row] = (given[row] + 1 + Math.floor((C - 1) * forLabels())) % C;
    }

    // all weights in one array, as torch has them: (H, D), (H,), (C, H), (C,), and its initial distribution
    const [B1, W2] = [H * D, H * D + H];
    const [B2, SIZE] = [W2 + C * H, W2 + C * H + C];
    const weights = new Float64Array(SIZE).map((_, k) => (2 * forWeights() - 1) / Math.sqrt(k < W2 ? D : H));
    const [average, velocity, gradient] = [weights.slice(), new Float64Array(SIZE), new Float64Array(SIZE)];
    const [hidden, back, logits] = [H, H, C].map((width) => new Float64Array(B * width));
    const [target, g] = [new Float64Array(C), new Float64Array(C)];

    const dot = (u, i, v, j, n) => { // in four sums, so that no addition waits for the one before
      let p = 0, q = 0, r = 0, s = 0;
      for (let k = 0; k < n; k += 4) {
        p += u[i + k] * v[j + k];
        q += u[i + k + 1] * v[j + k + 1];
        r += u[i + k + 2] * v[j + k + 2];
        s += u[i + k + 3] * v[j + k + 3];
      }
      return p + q + r + s;
    };
    const add = (i, scale, v, j, n) => { // to the gradient
      for (let k = 0; k < n; k += 1) gradient[i + k] += scale * v[j + k];
    };
    const forward = (w, rows) => { // sets `hidden` and `logits`; unit by unit, for the cache's sake
      for (let j = 0; j < H; j += 1) {
        for (let b = 0; b < rows.length; b += 1) {
          hidden[b * H + j] = Math.max(0, dot(w, j * D, x, rows[b] * D, D) + w[B1 + j]);
        }
      }
      for (let c = 0; c < C; c += 1) {
        for (let b = 0; b < rows.length; b += 1) {
          logits[b * C + c] = dot(w, W2 + c * H, hidden, b * H, H) + w[B2 + c];
        }
      }
    };

    const order = range(train);
    let at = train;
    const step = () => { // returns the batch's mean loss before the step
      if (at >= train) [at] = [0, shuffle(order, forOrder)];
      const rows = order.subarray(at, at + B);
      at += B;
      forward(weights, rows);
      gradient.fill(0);
      let loss = 0;
      for (let b = 0; b < rows.length; b += 1) {
        const f = logits.subarray(b * C, b * C + C);
        const top = Math.max(...f);
        const logSum = top + Math.log(f.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
        let total = 0;
        for (let c = 0; c < C; c += 1) {
          target[c] = (c === given[rows[b]]) + (sigma && sigma * normal());
          total += target[c];
          loss += (target[c] * (logSum - f[c])) / rows.length;
        }
        for (let c = 0; c < C; c += 1) g[c] = (total * Math.exp(f[c] - logSum) - target[c]) / rows.length;
        for (let c = 0; c < C; c += 1) {
          gradient[B2 + c] += g[c];
          add(W2 + c * H, g[c], hidden, b * H, H);
        }
        for (let j = 0; j < H; j += 1) {
          let sum = 0;
          for (let c = 0; c < C && hidden[b * H + j] > 0; c += 1) sum += g[c] * weights[W2 + c * H + j];
          back[b * H + j] = sum;
        }
      }
      for (let j = 0; j < H; j += 1) {
        for (let b = 0; b < rows.length; b += 1) {
          gradient[B1 + j] += back[b * H + j];
          if (back[b * H + j]) add(j * D, back[b * H + j], x, rows[b] * D, D);
        }
      }
      for (let k = 0; k < SIZE; k += 1) {
        velocity[k] = MOMENTUM * velocity[k] + gradient[k];
        weights[k] -= LR * velocity[k];
        average[k] += (1 - ALPHA) * (weights[k] - average[k]);
      }
      return loss;
    };

    // what is predicted as given: shares of right labels, of wrong labels (NaN without any), of test images
    const shares = (w) => {
      const [hits, counts] = [[0, 0, 0], [0, 0, 0]];
      for (let first = 0; first < N; first += B) {
        const rows = range(Math.min(B, N - first), first);
        forward(w, rows);
        rows.forEach((row, b) => {
          const f = logits.subarray(b * C, b * C + C);
          const kind = row >= train ? 2 : Number(given[row] !== labels[row]);
          counts[kind] += 1;
          hits[kind] += f.indexOf(Math.max(...f)) === given[row];
        });
      }
      return hits.map((hit, kind) => hit / counts[kind]);
    };
    const epoch = () => { do step(); while (at < train); };
    const measure = () => ({ network: shares(weights), average: shares(average) });
    return { step, epoch, measure, weights, average, given, order };
  }

  function serve({ data: [pixels, labels, options] }) { // in the worker: at most 60 measurements of a run
    const [run, every] = [learner(pixels, labels, options), Math.ceil(options.epochs / 60)];
    postMessage({ epoch: 0, ...run.measure() });
    for (let epoch = 1; epoch <= options.epochs; epoch += 1) {
      run.epoch();
      if (epoch % every === 0 || epoch === options.epochs) postMessage({ epoch, ...run.measure() });
    }
  }

  const SHOWN = 4; // runs: the newest and three before it
  const percent = (share) => (Number.isNaN(share) ? "none" : `${Math.round(100 * share)}%`);
  const told = ({ rate, epochs, seed, points }) =>
    `${percent(rate)} wrong labels, ${points.at(-1)?.epoch ?? epochs} epochs, seed ${seed}`;

  // The curves of `runs`, newest last and on top; `kind` is a place in what `shares` returns.
  function panel(runs, kind) {
    const longest = Math.max(...runs.map((run) => run.epochs), runs.length ? 0 : 150);
    const [X, Y] = [(epoch) => 50 + (213 * epoch) / longest, (share) => 186 - 160 * share];
    const [every, text] = [[20, 50, 100].find((size) => longest / size <= 4), []];
    const parts = ['<text x="157" y="227" text-anchor="middle">epoch</text>'];
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(`<path class="grid" d="M50 ${Y(share)}H263"/>`);
      parts.push(`<text x="44" y="${Y(share) + 5}" text-anchor="end">${percent(share)}</text>`);
    }
    for (let epoch = 0; epoch <= longest; epoch += every) {
      parts.push(`<text x="${X(epoch)}" y="206" text-anchor="middle">${epoch}</text>`);
    }
    const drawn = runs.filter((run) => run.points.length && !Number.isNaN(run.points[0].average[kind]));
    for (const run of drawn) {
      for (const name of ["network", "average"]) {
        const line = run.points.map((at) => `${X(at.epoch).toFixed(1)} ${Y(at[name][kind]).toFixed(1)}`);
        const look = `${name} ${run.sigma > 0 ? "noise" : "plain"} ${run === runs.at(-1) ? "" : "earlier"}`;
        parts.push(`<path class="${look}" d="M${line.join("L")}"/>`);
      }
      text.push([X(run.points.at(-1).epoch) + 5, Y(run.points.at(-1).average[kind]) + 5, run.sigma]);
    }
    let free = Infinity; // each line's sigma at its end, from the lowest up, none over another
    for (const [x, y, sigma] of text.sort((a, b) => b[1] - a[1])) {
      free = Math.min(free - 16, y);
      parts.push(`<text class="end" x="${x}" y="${free}">σ = ${sigma}</text>`);
    }
    return parts.join("");
  }

  class Train extends HTMLElement {
    static learner = learner; // for the tests
    one = (selector) => this.querySelector(selector);
    say = (words) => { this.one(".words").textContent = words; };

    async connectedCallback() {
      if (this.runs) return;
      this.runs = [];
      if (!window.DecompressionStream) return this.say("This browser is too old to train here.");
      const packed = Uint8Array.from(atob(this.one("script").textContent), (letter) => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
      this.images = [bytes.slice(0, (bytes.length / 65) * 64), bytes.slice((bytes.length / 65) * 64)];
      this.one("form").addEventListener("input", () => this.read());
      this.one("form").addEventListener("submit", (event) => {
        event.preventDefault();
        if (this.worker) this.end();
        else this.train();
      });
      const follow = () => { // a link such as #train.sigma=1 sets a control
        const wanted = new URLSearchParams(location.hash.slice(1));
        for (const input of this.querySelectorAll("input")) {
          input.value = wanted.get(`${this.id}.${input.name}`) ?? input.value;
        }
        this.read();
      };
      addEventListener("hashchange", follow);
      follow();
      this.draw();
      this.one("fieldset").disabled = false;
      return this.say("Train at σ = 0 first. Then set σ to 1, and train again on the same labels.");
    }

    disconnectedCallback() {
      this.worker?.terminate();
    }

    read() { // the controls' values, which it also writes beside the sliders
      const inputs = [...this.querySelectorAll("input")];
      for (const slider of inputs.filter((input) => input.type === "range")) {
        const shown = slider.name === "rate" ? percent(slider.value) : slider.value;
        slider.nextElementSibling.value = shown;
        slider.setAttribute("aria-valuetext", shown);
      }
      return Object.fromEntries(inputs.map((input) => [input.name, Number(input.value)]));
    }

    train() {
      const run = { ...this.read(), points: [] };
      this.runs = [...this.runs, run].slice(-SHOWN);
      this.one("button").textContent = "Stop";
      this.one("form").noValidate = true; // a number that is half typed does not keep it from stopping
      this.say(`Training at σ = ${run.sigma}, ${told(run)}.`);
      const address = URL.createObjectURL(new Blob([`${learner}; onmessage = ${serve}`]));
      this.worker = new Worker(address);
      let start;
      this.worker.onerror = ({ message }) => this.end(`The training failed: ${message ?? "no worker"}.`);
      this.worker.onmessage = ({ data: point }) => {
        start ??= performance.now();
        URL.revokeObjectURL(address); // not before: Safari may not have read it yet
        run.points.push(point);
        this.draw();
        if (point.epoch === run.epochs) return this.end();
        const left = ((performance.now() - start) / 1000) * (run.epochs / point.epoch - 1);
        this.one("progress").value = point.epoch / run.epochs;
        this.one(".left").textContent = point.epoch ? `epoch ${point.epoch}, ${Math.ceil(left)} s left` : "";
        return undefined;
      };
      this.worker.postMessage([...this.images, { ...run, train: Number(this.dataset.train) }]);
    }

    end(problem) { // the run is complete, was stopped, or failed
      this.worker.onmessage = null;
      this.worker.terminate();
      this.worker = null;
      this.one("button").textContent = "Train";
      this.one("form").noValidate = false;
      this.one("progress").value = 0;
      this.one(".left").textContent = "";
      const run = this.runs.at(-1);
      if (!run.points.length) {
        this.runs.pop();
        this.draw();
        return this.say(problem ?? "Stopped before the first epoch.");
      }
      const { epoch, network, average } = run.points.at(-1);
      const how = problem ? `${problem} ` : epoch < run.epochs ? "Stopped. " : "";
      return this.say(`${how}σ = ${run.sigma}: ${percent(average[2])} test accuracy (average), `
        + `${percent(average[1])} of the wrong labels memorised. The network itself, without averaging: `
        + `${percent(network[2])} and ${percent(network[1])}. (${told(run)})`);
    }

    draw() {
      const runs = this.runs.filter((run) => run.points.length);
      this.querySelectorAll(".panel svg").forEach((svg, kind) => { svg.innerHTML = panel(this.runs, kind); });
      this.one("table").hidden = !runs.length;
      this.one("tbody").innerHTML = runs.reverse().map((run) => {
        const { network, average } = run.points.at(-1);
        const cells = network.map((share, kind) => `<td>${percent(share)} / ${percent(average[kind])}`);
        return `<tr><th scope="row">σ = ${run.sigma}<small>, ${told(run)}</small></th>${cells.join("")}`;
      }).join("");
    }
  }
  if (!customElements.get("sln-train")) customElements.define("sln-train", Train);
}
