// Keys for the rating page: digits answer the marked question, letters mark one, Enter and Backspace move, Space plays.
(() => {
  const letters = { g: 0, r: 1, c: 2 };
  let chosen = null; // the question that a letter marked, until it is answered or another caption is shown
  let place = null;
  const scales = () => [...document.querySelectorAll(".rate-scale")];
  const isAnswered = (scale) => scale.querySelector("input:checked") !== null;
  const marked = () => {
    const all = scales();
    if (chosen !== null && all[chosen]) return all[chosen];
    return all.find((scale) => !isAnswered(scale)) ?? null;
  };
  const mark = () => {
    const shown = document.querySelector(".rate-caption")?.dataset.place ?? null;
    if (shown !== place) {
      place = shown;
      chosen = null;
    }
    const target = marked();
    for (const scale of scales()) {
      if (scale.hasAttribute("data-marked") !== (scale === target)) scale.toggleAttribute("data-marked", scale === target);
    }
  };
  const answer = (number) => {
    const input = marked()?.querySelectorAll("input[type=radio]")[number - 1];
    chosen = null;
    input?.click();
  };
  const play = () => {
    const media = document.querySelector("#enclap-player audio, #enclap-player video");
    if (media === null) return;
    if (media.paused) media.play().catch(() => {});
    else media.pause();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const isButton = event.target.closest("button, a, audio, video, summary") !== null;
    const key = event.key.toLowerCase();
    if (/^[1-4]$/.test(key)) answer(Number(key));
    else if (key in letters) chosen = letters[key];
    else if (key === "enter" && !isButton) document.querySelector("#rate-next")?.click();
    else if (key === "backspace") document.querySelector("#rate-back")?.click();
    else if (key === " " && !isButton) play();
    else return;
    event.preventDefault();
    mark();
  });
  new MutationObserver(mark).observe(document.documentElement, { childList: true, subtree: true });
  for (const name of ["change", "input", "click"]) document.addEventListener(name, () => requestAnimationFrame(mark));
})();
