// The parts of the article that are no player: numbers to save, and where in the contents the reader is.
const unpacks = "DecompressionStream" in window; // not in an old browser
for (const button of unpacks ? document.querySelectorAll("button[data-csv]") : []) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const bytes = Uint8Array.from(atob(button.dataset.csv), (letter) => letter.charCodeAt(0));
    const text = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await text.blob()], { type: "text/csv" }));
    link.download = button.dataset.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "0px 0px -70% 0px" });
for (const heading of document.querySelectorAll("main section, main h2, main sln-train")) if (links.has(heading.id)) seen.observe(heading);
const wide = matchMedia("(min-width: 76rem)"); // as in article.css: the contents stand beside the text
const fold = () => { document.querySelector("nav details").open = wide.matches; };
wide.addEventListener("change", fold);
fold();
