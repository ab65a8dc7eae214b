// Ties the player, the waveform and the captions together; listens on the document, because the page redraws its parts.
(() => {
  const player = () => document.querySelector("#enclap-player audio, #enclap-player video");
  const jump = (seconds) => {
    const media = player();
    if (media === null) return;
    media.currentTime = seconds;
    media.play().catch(() => {});
  };
  document.addEventListener("click", (event) => {
    const caption = event.target.closest("[data-start]");
    if (caption !== null) return jump(Number(caption.dataset.start));
    const wave = event.target.closest("#enclap-wave");
    const media = player();
    if (wave === null || media === null || !Number.isFinite(media.duration)) return;
    const box = wave.getBoundingClientRect();
    jump(((event.clientX - box.left) / box.width) * media.duration);
  });
  const show = () => {
    const media = player();
    if (media === null) return;
    const now = media.currentTime;
    const wave = document.querySelector("#enclap-wave");
    if (wave !== null && media.duration > 0) wave.style.setProperty("--played", `${(100 * now) / media.duration}%`);
    let sentence = "";
    for (const caption of document.querySelectorAll("[data-start]")) {
      const plays = now >= Number(caption.dataset.start) && now < Number(caption.dataset.end);
      caption.toggleAttribute("data-plays", plays);
      caption.setAttribute("aria-current", plays ? "true" : "false");
      if (plays) sentence = caption.querySelector(".sentence").textContent;
    }
    const subtitle = document.querySelector("#enclap-subtitle");
    if (subtitle !== null) subtitle.textContent = sentence;
  };
  for (const name of ["timeupdate", "seeked", "loadedmetadata"]) document.addEventListener(name, show, true);
})();
