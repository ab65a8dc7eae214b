// How a recording gets to the server: dropped, chosen, made with the microphone, or one of the examples.
(() => {
  const LOST = "The server cannot be reached. Check the connection and try again.";
  const FOLDER = "This is a folder. Drop one sound or film.";
  const PERHAPS_MOVED = "The file could not be sent: it was moved, or the connection was lost. Try again.";
  const CUT = "The connection was lost for too long; the recording ends with what the server has.";
  const ENDED_THERE = "The server has ended this recording; it keeps what came before.";
  const ENDED = 401;
  const WORDS = {
    [ENDED]: "Your session has ended. Load this page again.",
    NotAllowedError: "The browser was not allowed to use the microphone. Allow it beside the address, then record again.",
    NotFoundError: "No microphone was found. Connect one, then record again.",
    NotReadableError: "The microphone is in use by another program. Close that one, then record again.",
  };
  const PATIENCE = 45; // seconds without an answer until a recording is given up; the server waits a little longer
  const MOST_PIECE = 2 ** 21; // samples that are sent at once
  const CAPTURE = `registerProcessor("enclap-capture", class extends AudioWorkletProcessor {
    constructor() { super(); this.held = new Float32Array(2048); this.filled = 0; }
    process([[samples]]) {
      if (samples === undefined) return true;
      this.held.set(samples, this.filled);
      this.filled += samples.length;
      if (this.filled >= this.held.length) { this.port.postMessage(this.held.slice()); this.filled = 0; }
      return true;
    }
  });`;

  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  const words = (status, answer) => WORDS[status] ?? answer?.error?.message ?? LOST;

  // Opens the microphone as it is: what browsers do for speech (against noise and echo) takes away other sounds.
  const openMicrophone = async (onSamples) => {
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const context = new AudioContext();
    const script = URL.createObjectURL(new Blob([CAPTURE], { type: "text/javascript" }));
    await context.audioWorklet.addModule(script);
    URL.revokeObjectURL(script);
    await context.resume();
    const capture = new AudioWorkletNode(context, "enclap-capture", { channelCount: 1, channelCountMode: "explicit" });
    capture.port.onmessage = (event) => onSamples(event.data);
    context.createMediaStreamSource(stream).connect(capture).connect(context.destination); // which stays silent
    const close = () => {
      for (const track of stream.getTracks()) track.stop();
      if (context.state !== "closed") context.close();
    };
    return { rate: context.sampleRate, close, track: stream.getTracks()[0] };
  };

  // Sends samples one after another until `isOver()` and all are sent; gives null, or why it was given up.
  const sendSamples = async (address, pending, isOver) => {
    let sent = 0;
    let heard = Date.now();
    for (;;) {
      for (let waited = 0; waited < 10 && !isOver(); waited += 1) await pause(0.1);
      const last = isOver() && pending.length <= MOST_PIECE / 2048;
      const parts = pending.slice(0, MOST_PIECE / 2048);
      const piece = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
      parts.reduce((at, part) => (piece.set(part, at), at + part.length), 0);
      let response = null;
      try {
        response = await fetch(`${address}?at=${sent}&last=${last}`, { method: "PATCH", body: piece });
      } catch {
        // nothing came back; it is tried again below
      }
      if (response?.ok) {
        pending.splice(0, parts.length);
        sent = (await response.json()).bytes;
        heard = Date.now();
        if (last) return null;
      } else if (response !== null && response.status < 500 && response.status !== 429) {
        const answer = await response.json().catch(() => null);
        if (answer?.error?.code !== "recording_ended") return words(response.status, answer);
        return isOver() ? null : ENDED_THERE;
      } else if (Date.now() - heard > 1000 * PATIENCE) {
        return CUT;
      } else {
        await pause(1); // the connection may come back
      }
    }
  };

  enclap.input = (element, trigger) => {
    const part = (name) => element.querySelector(`#enclap-${name}`);
    const section = part("input");
    const { address, most, mostShown } = section.dataset;
    let current = ""; // the recording that is shown; the next one replaces it
    let sending = null; // XMLHttpRequest: fetch does not tell how much was sent
    let recording = null; // resolves when the microphone is closed and all is sent
    let stop = () => {};
    const say = (text) => { part("fault").textContent = text; };
    const show = (id) => {
      current = id;
      trigger("submit", { recording: id });
    };

    const post = (path, fields, body = null) => new Promise((done) => {
      const query = new URLSearchParams({ ...fields, replaces: current });
      const request = new XMLHttpRequest();
      sending = request;
      const progress = part("sending").querySelector("progress");
      progress.value = 0;
      request.upload.onprogress = (event) => { progress.value = event.loaded / Math.max(1, event.total); };
      request.responseType = "json";
      request.onload = () => {
        if (request.status !== 201) say(words(request.status, request.response));
        done(request.status === 201 ? request.response.id : null);
      };
      request.onerror = () => { say(body === null ? LOST : PERHAPS_MOVED); done(null); };
      request.onabort = () => done(null);
      request.open("POST", `${address}${path}?${query}`);
      request.send(body);
    });

    const send = async (fields, body = null) => {
      say("");
      sending?.abort();
      stop();
      await recording;
      part("sending").hidden = body === null;
      const id = await post("", fields, body);
      part("sending").hidden = true;
      if (id !== null) show(id);
    };

    const sendFile = (file) => {
      if (file.size > Number(most)) {
        return say(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MB; this server takes ${mostShown} at most.`);
      }
      send({ name: file.name }, file);
    };

    const record = async () => {
      say("");
      sending?.abort();
      const pending = [];
      let isOver = false;
      let loudest = 0;
      let heard = 0; // samples
      let microphone;
      try {
        microphone = await openMicrophone((samples) => {
          if (isOver) return;
          pending.push(Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(32768 * value)))));
          heard += samples.length;
          for (const value of samples) loudest = Math.max(loudest, Math.abs(value));
        });
      } catch (error) {
        return say(WORDS[error.name] ?? `The microphone cannot be used: ${error.message}`);
      }
      const id = await post("/live", { rate: microphone.rate });
      if (id === null) return microphone.close();
      stop = () => {
        isOver = true;
        microphone.close();
      };
      microphone.track.addEventListener("ended", () => stop()); // it was pulled out
      section.dataset.records = "";
      part("record").querySelector(".words").textContent = "Stop";
      part("recording").hidden = false;
      const showHeard = () => { part("clock").textContent = clock(heard / microphone.rate); };
      const shown = setInterval(() => {
        showHeard();
        part("level").value = Math.sqrt(loudest); // so that quiet sounds move it too
        loudest = 0;
      }, 100);
      show(id);
      const fault = await sendSamples(`${address}/${id}`, pending, () => isOver);
      stop();
      stop = () => {};
      clearInterval(shown);
      showHeard(); // the whole of it: a busy browser is late with what is to be done at intervals
      delete section.dataset.records;
      part("record").querySelector(".words").textContent = "Record";
      part("recording").hidden = true;
      if (fault !== null) say(fault);
    };

    const canRecord = window.isSecureContext && navigator.mediaDevices?.getUserMedia !== undefined;
    part("record").disabled = !canRecord;
    section.toggleAttribute("data-cannot-record", !canRecord);
    part("record").addEventListener("click", () => {
      if (recording !== null) return stop();
      recording = record().finally(() => { recording = null; });
    });
    part("file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file !== undefined) sendFile(file);
      event.target.value = ""; // so that the same file can be chosen again
    });
    part("stop-sending").addEventListener("click", () => sending?.abort());
    for (const button of element.querySelectorAll("[data-example]")) {
      button.addEventListener("click", () => send({ example: button.dataset.example }));
    }
    const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault(); // a browser would leave the page and open the file
      section.toggleAttribute("data-dragged", true);
    });
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) section.toggleAttribute("data-dragged", false);
    });
    document.addEventListener("drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      section.toggleAttribute("data-dragged", false);
      const [item] = event.dataTransfer.items;
      if (item?.webkitGetAsEntry?.()?.isDirectory) return say(FOLDER);
      const [file] = event.dataTransfer.files;
      if (file === undefined) return;
      sendFile(file);
      if (event.dataTransfer.files.length > 1) say(`One recording at a time: this is ${file.name}.`);
    });
  };

  const copied = async (text) => {
    if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea"); // over plain HTTP there is no other way
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  document.addEventListener("click", async (event) => {
    if (event.target.id !== "enclap-copy") return;
    const rows = [...document.querySelectorAll("#enclap-table tr")];
    const text = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join("\t")).join("\n");
    const told = document.querySelector("#enclap-copied");
    told.textContent = "";
    await copied(`${text}\n`).then(
      () => { told.textContent = "Copied."; },
      () => { told.textContent = "The browser does not allow it; select the table and copy it by hand."; },
    );
  });
})();
