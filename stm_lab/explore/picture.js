function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
  image.draggable = false;
  image.className = "stm-lab-picture";
  let [shown, turn] = [null, 0];
  const show = async () => {
    const mine = ++turn;
    const address = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    const next = new Image();
    next.src = address;
    try { await next.decode(); } catch { /* the browser shows what it can */ }
    if (mine !== turn) return URL.revokeObjectURL(address);  // a later picture replaced it or is being decoded
    image.src = address;
    image.alt = model.get("alt");
    image.width = model.get("width");
    image.style.cursor = model.get("clickable") ? "crosshair" : "default";
    image.style.touchAction = model.get("draggable") ? "none" : "auto";  // otherwise a finger scrolls the page
    if (shown) URL.revokeObjectURL(shown);
    shown = address;
  };
  const placeOf = (event) => {
    const box = image.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let [down, drag, waits] = [null, null, false];
  const queue = [];  // of drags, [start x, start y, x, y, drag]; each drag only with its latest place
  const send = () => {
    if (waits || !queue.length) return;
    waits = true;
    model.set("dragged", [...queue.shift(), (model.get("dragged")[5] ?? 0) + 1]);
    model.save_changes();
  };
  const onAnswer = () => { waits = false; send(); };
  image.addEventListener("pointerdown", (event) => {
    if (!model.get("draggable") || event.button !== 0) return;
    image.setPointerCapture(event.pointerId);
    [down, drag] = [event, null];
  });
  const follow = (event) => {
    if (!down) return;
    const away = Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY);
    if (drag === null && away < 4) return;  // pixels: a hand moves a little while it clicks
    drag ??= (queue.at(-1)?.[4] ?? model.get("dragged")[4] ?? 0) + 1;
    if (queue.at(-1)?.[4] === drag) queue.pop();
    queue.push([...placeOf(down), ...placeOf(event), drag]);
    send();
  };
  image.addEventListener("pointermove", follow);
  image.addEventListener("pointerup", (event) => { follow(event); down = null; });
  image.addEventListener("pointercancel", () => { down = null; });
  image.addEventListener("click", (event) => {
    if (!model.get("clickable") || drag !== null) return;  // the browser also reports the end of a drag as a click
    model.set("clicked", [...placeOf(event), (model.get("clicked")[2] ?? 0) + 1]);
    model.save_changes();
  });
  const frame = document.createElement("div");
  frame.style.cssText = "position:relative; display:inline-block; max-width:100%";
  const hint = document.createElement("div");
  hint.className = "stm-lab-hint";
  hint.style.cssText = "position:absolute; display:none; pointer-events:none; white-space:pre; padding:2px 6px;" +
    "font:12px sans-serif; color:#000; background:#fff; border:1px solid #888; border-radius:3px; z-index:9";
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const away = ([x, y]) => Math.hypot(left - x * box.width, top - y * box.height);
    let [nearest, best] = [null, 14];
    for (const one of model.get("hints")) if (away(one) < best) [nearest, best] = [one, away(one)];
    hint.style.display = nearest ? "block" : "none";
    if (!nearest) return;
    hint.textContent = nearest[2];
    hint.style.top = `${nearest[1] * box.height + 10}px`;
    const isLeft = nearest[0] < 0.6;
    hint.style.left = isLeft ? `${nearest[0] * box.width + 10}px` : "auto";
    hint.style.right = isLeft ? "auto" : `${(1 - nearest[0]) * box.width + 10}px`;
  });
  image.addEventListener("pointerleave", () => { hint.style.display = "none"; });
  model.on("change:png", show);
  model.on("change:answered", onAnswer);
  frame.append(image, hint);
  el.appendChild(frame);
  show();
  return () => {
    turn++;
    model.off("change:png", show);
    model.off("change:answered", onAnswer);
    if (shown) URL.revokeObjectURL(shown);
  };
}
export default { render };
