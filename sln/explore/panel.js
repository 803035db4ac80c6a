// Names for what ipywidgets leaves unnamed: a slider's handle gets its label and what its readout says.
if (!window.slnNamed) {
    window.slnNamed = true;
    const set = (element, name, value) => { if (element.getAttribute(name) !== value) element.setAttribute(name, value); };
    const name = () => {
        for (const row of document.querySelectorAll(".widget-slider")) {
            const [handle, readout, label] = [".noUi-handle", ".widget-readout", ".widget-label"].map(c => row.querySelector(c));
            if (!handle || !readout || !label) continue;
            set(handle, "aria-label", label.textContent);
            set(handle, "aria-valuetext", readout.textContent);
            if (handle.getAttribute("disabled") !== null) set(handle, "aria-disabled", "true");
            if (readout.isContentEditable) { set(readout, "role", "textbox"); set(readout, "aria-label", label.textContent); }
        }
        for (const words of document.querySelectorAll(".sln-explorer .sln-words, .sln-training")) set(words, "aria-live", "polite");
        for (const picture of document.querySelectorAll(".widget-html.sln-picture")) {  // it may scroll sideways
            set(picture, "tabindex", "0"); set(picture, "role", "group"); set(picture, "aria-label", "Picture");
        }
        for (const button of document.querySelectorAll(".sln-opened:not([data-pressed])")) {
            button.dataset.pressed = "";
            button.click();
        }
    };
    const watched = {subtree: true, childList: true, characterData: true, attributeFilter: ["aria-valuetext"]};
    new MutationObserver(name).observe(document.body, watched);
    name();
}
