// Ties the player, the waveform and the captions together; listens on the document, because the page redraws its parts.
window.enclap = {};
(() => {
  const UNPLAYABLE = "This browser cannot play this kind of file. Its captions are complete all the same.";
  const PICTURE = "Spectrogram: frequencies from low to high over time; what is loud is light.";
  const NOT_SHOWN = '<li role="alert" class="enclap-error">The other captions cannot be shown. Load this page again.</li>';
  const RETRY_SECONDS = 1;
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds, true));
  const cued = new WeakMap(); // film -> the run of captions that its subtitles show
  const player = () => document.querySelector("#enclap-player audio, #enclap-player video");
  const captions = () => document.getElementsByClassName("caption"); // in the order of their times; stays up to date
  let lit = null; // the caption that plays, the only one that is marked as such
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
  const captionAt = (seconds) => { // by halves: a long recording has thousands
    const all = captions();
    let [low, high] = [0, all.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (Number(all[middle].dataset.start) <= seconds) low = middle + 1;
      else high = middle;
    }
    const found = all[low - 1];
    return found !== undefined && seconds < Number(found.dataset.end) ? found : null;
  };
  const light = (caption, follows) => { // changes two captions at most, however many there are
    if (caption === lit) return;
    lit?.removeAttribute("data-plays");
    lit?.removeAttribute("aria-current");
    caption?.setAttribute("data-plays", "");
    caption?.setAttribute("aria-current", "true");
    if (caption !== null && follows) follow(caption);
    lit = caption;
  };
  const show = () => {
    const media = player();
    if (media === null) return;
    const now = media.currentTime;
    const length = Number.isFinite(media.duration) && media.duration > 0 ? media.duration : null;
    const percent = (seconds) => (length === null ? "0%" : `${Math.min(100, (100 * seconds) / length)}%`);
    light(captionAt(now), !media.paused);
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
    const all = captions();
    for (let number = track.cues.length; number < all.length; number += 1) {
      const caption = all[number];
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
  // Captions are added to those that are there: the keyboard's focus and what was unfolded stay as they are. Gradio tells
  // how many there are; only new ones are fetched, so the thousandth caption costs as much as the first.
  enclap.captions = (element, props, watch) => {
    const list = element.querySelector("ol");
    let isFetching = false;
    const add = async ({ run, address, live }) => {
      const response = await fetch(`${address}?run=${run}&first=${list.children.length}`).catch(() => null);
      const answer = await response?.json().catch(() => null);
      if (list.dataset.run !== run) return true; // other captions are shown by now
      if (!answer || response.status >= 500 || response.status === 429) return pause(RETRY_SECONDS);
      list.insertAdjacentHTML("beforeend", response.ok ? answer.rows.join("") : NOT_SHOWN);
      if (live) list.scrollTop = list.scrollHeight;
      addSubtitles();
      show();
      return response.ok;
    };
    watch("value", async () => {
      const { run } = props.value;
      if (list.dataset.run !== run) {
        list.replaceChildren();
        list.dataset.run = run;
      }
      if (isFetching) return; // what it does not bring is asked for afterwards
      isFetching = true;
      while (list.children.length < props.value.count && (await add(props.value)));
      isFetching = false;
    });
  };
})();
