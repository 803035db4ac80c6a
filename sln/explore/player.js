// <sln-player>: native sliders over frames that are drawn beforehand (player.py); no library, no request.
if (!customElements.get("sln-player")) customElements.define("sln-player", class extends HTMLElement {
    /** Put `next` in the place of `old`; what is equal stays, which is quicker to show. */
    static replace(old, next) {
        if (old.isEqualNode(next)) return;
        const kept = old.childElementCount && old.childElementCount === next.childElementCount && old.nodeName !== "text"
            && old.cloneNode(false).isEqualNode(next.cloneNode(false));
        if (!kept) return old.replaceWith(next);
        const wanted = [...next.children];
        [...old.children].forEach((child, number) => this.replace(child, wanted[number]));
    }

    connectedCallback() {
        this.follow ??= () => this.read();
        addEventListener("hashchange", this.follow);  // once, if it is called again
        if (this.sliders) return;  // it was only put elsewhere in the page
        if (!this.querySelector(":scope > script")) {  // the page is still being read
            document.addEventListener("DOMContentLoaded", () => this.connectedCallback(), {once: true});
            return;
        }
        if (!window.DecompressionStream) return;  // in an old browser the picture stays as it is
        this.sliders = [...this.querySelectorAll("input")];
        this.picture = this.querySelector(".sln-picture");
        this.words = this.querySelector(".sln-words");
        this.turn = 0;
        this.querySelector("fieldset").disabled = false;
        for (const slider of this.sliders) {
            slider.addEventListener("input", () => this.show());
            slider.addEventListener("change", () => this.write());
        }
        this.querySelector("button").addEventListener("click", async () => {
            for (const slider of this.sliders) slider.value = slider.defaultValue;
            await this.show();
            this.write();
        });
        new IntersectionObserver((entries, observer) => {  // unpacked shortly before it is seen
            if (entries.some(entry => entry.isIntersecting)) { observer.disconnect(); this.unpacked(); }
        }, {rootMargin: "1000px"}).observe(this);
        this.read();
    }

    disconnectedCallback() {
        removeEventListener("hashchange", this.follow);
    }

    unpacked() {
        return this.frames ??= (async () => {
            const text = this.querySelector(":scope > script").textContent;
            const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
            return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
        })();
    }

    /** An image that is there at once when a frame with it is shown. */
    decoded(source) {
        this.images ??= new Map();
        if (!this.images.has(source)) {
            const image = new Image();
            image.src = source;
            this.images.set(source, image);
        }
        return this.images.get(source);
    }

    async show() {
        const turn = ++this.turn, data = await this.unpacked();
        if (turn !== this.turn) return;  // a newer move came meanwhile
        let frame = 0;
        this.sliders.forEach((slider, number) => {
            const names = data.values[number];
            frame = frame * names.length + Number(slider.value);
            slider.nextElementSibling.value = names[slider.value];
            slider.setAttribute("aria-valuetext", names[slider.value]);
        });
        const next = document.createElement("div");
        next.innerHTML = data.frames[frame].map(token => data.tokens[token]).join("");
        next.style.cssText = this.picture.firstElementChild.style.cssText;
        // images are decoded before they are seen, so that nothing flickers
        const ahead = [...next.querySelectorAll("image")].map(image => this.decoded(image.getAttribute("href")));
        if (ahead.some(image => !image.complete)) await Promise.all(ahead.map(image => image.decode().catch(() => {})));
        if (turn !== this.turn) return;
        this.constructor.replace(this.picture.firstElementChild, next);
        this.words.textContent = data.words[frame];
        this.picture.setAttribute("aria-label", data.words[frame]);
    }

    /** The address's values, `#id.name=value&…`: the nearest that there is; what it leaves out is at its start. */
    async read() {
        if (!this.sliders) return;
        const asked = new URLSearchParams(location.hash.slice(1)), key = slider => `${this.id}.${slider.name}`;
        if (!this.sliders.some(slider => asked.has(key(slider)))) return;
        const {values} = await this.unpacked();
        this.sliders.forEach((slider, number) => {
            const wanted = asked.get(key(slider)), names = values[number];
            const far = names.map(name => Math.abs(Number(name) - Number(wanted)));
            const same = names.indexOf(wanted), near = far.indexOf(Math.min(...far));
            slider.value = wanted === null ? slider.defaultValue : same >= 0 ? same : near >= 0 ? near : slider.value;
        });
        await this.show();
        this.scrollIntoView({block: "nearest"});
    }

    /** What is not at its start goes into the address, beside that of the other players. */
    async write() {
        const {values} = await this.unpacked(), state = new URLSearchParams(location.hash.slice(1));
        for (const name of [...state.keys()]) if (!name.includes(".") || name.startsWith(`${this.id}.`)) state.delete(name);
        this.sliders.forEach((slider, number) => {
            if (slider.value !== slider.defaultValue) state.set(`${this.id}.${slider.name}`, values[number][slider.value]);
        });
        history.replaceState(history.state, "", `#${state}`);
    }
});
