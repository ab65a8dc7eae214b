// Ties the player, the waveform and the captions together; listens on the document, because the page redraws its parts.
window.enclap = {};
(() => {
  const UNPLAYABLE = "This browser cannot play this kind of file. Its captions are complete all the same.";
  const PICTURE = "Spectrogram: frequencies from low to high over time; what is loud is light.";
  const cued = new WeakMap(); // film -> the run of captions that its subtitles show
  const player = () => document.querySelector("#enclap-player audio, #enclap-player video");
  const captions = () => [...document.querySelectorAll("[data-start]")];
  const jump = (seconds) => {
    const media = player();
    if (media === null) return;
    media.currentTime = seconds;
    media.play().catch(() => {}); // a player that cannot play says so itself
  };
  document.addEventListener("click", (event) => {
    const caption = event.target.closest("[data-start]");
    if (caption !== null) return jump(Number(caption.dataset.start));
    const wave = event.target.closest("#enclap-wave, #enclap-spectrogram");
    const media = player();
    if (wave === null || media === null || !Number.isFinite(media.duration)) return;
    const box = wave.getBoundingClientRect();
    jump(((event.clientX - box.left) / box.width) * media.duration);
  });
  const follow = (button) => { // only inside the list: the page itself stays where the reader left it
    const list = button.closest("ol");
    const top = button.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top + button.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = top - list.clientHeight / 3;
    }
  };
  const show = () => {
    const media = player();
    if (media === null) return;
    const now = media.currentTime;
    const length = Number.isFinite(media.duration) && media.duration > 0 ? media.duration : null;
    const percent = (seconds) => (length === null ? "0%" : `${Math.min(100, (100 * seconds) / length)}%`);
    let lit = null;
    for (const caption of captions()) {
      const plays = now >= Number(caption.dataset.start) && now < Number(caption.dataset.end);
      if (plays && !caption.hasAttribute("data-plays") && !media.paused) follow(caption);
      caption.toggleAttribute("data-plays", plays);
      caption.setAttribute("aria-current", plays ? "true" : "false");
      if (plays) lit = caption;
    }
    for (const wave of document.querySelectorAll("#enclap-wave, #enclap-spectrogram")) {
      wave.style.setProperty("--played", percent(now));
      wave.style.setProperty("--lit-from", percent(lit === null ? 0 : Number(lit.dataset.start)));
      wave.style.setProperty("--lit-to", percent(lit === null ? 0 : Number(lit.dataset.end)));
    }
  };
  const addSubtitles = () => {
    const media = player();
    const list = document.querySelector(".enclap-captions");
    if (list === null || !(media instanceof HTMLVideoElement)) return;
    const track = media.textTracks[0] ?? media.addTextTrack("captions", "Captions", "en");
    if (cued.get(media) !== list.dataset.run) {
      track.mode = "showing";
      for (const cue of [...track.cues]) track.removeCue(cue);
      cued.set(media, list.dataset.run);
    }
    for (const caption of captions().slice(track.cues.length)) {
      const text = caption.querySelector(".sentence").textContent;
      track.addCue(new VTTCue(Number(caption.dataset.start), Number(caption.dataset.end), text));
    }
  };
  for (const name of ["timeupdate", "seeked", "loadedmetadata", "play"]) document.addEventListener(name, show, true);
  document.addEventListener("loadedmetadata", (event) => {
    const media = event.target;
    if (media instanceof HTMLVideoElement) media.classList.toggle("no-picture", media.videoWidth === 0);
    addSubtitles();
  }, true);
  document.addEventListener("error", (event) => {
    const note = document.querySelector("#enclap-unplayable");
    if (event.target !== player() || note === null) return;
    note.textContent = UNPLAYABLE;
    note.hidden = false;
  }, true);
  document.addEventListener("toggle", (event) => { // the picture is drawn when somebody wants to see it
    if (event.target.id !== "enclap-frequencies" || !event.target.open) return;
    const place = document.querySelector("#enclap-spectrogram");
    if (place.querySelector("img") !== null) return;
    const picture = new Image();
    picture.alt = PICTURE;
    place.setAttribute("aria-busy", "true");
    picture.onload = () => place.removeAttribute("aria-busy");
    picture.onerror = () => { place.textContent = "The picture could not be drawn. Load the page again."; };
    picture.src = place.dataset.address;
    place.append(picture);
    show();
  }, true);
  // Captions are added to those that are there: the keyboard's focus and what was unfolded stay as they are.
  enclap.captions = (element, props, watch) => {
    const list = element.querySelector("ol");
    watch("value", () => {
      const { run, rows, live } = props.value;
      if (list.dataset.run !== run) list.replaceChildren();
      list.dataset.run = run;
      for (const row of rows.slice(list.children.length)) list.insertAdjacentHTML("beforeend", row);
      if (live) list.scrollTop = list.scrollHeight;
      addSubtitles();
      show();
    });
  };
})();
