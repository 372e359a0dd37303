// Draws the maps on inflated hemispheres that can be turned; started by a button, by nothing else.
{
  const figure = document.getElementById("brain");
  const packed = document.getElementById("brain-data");
  if (figure && packed) {
    const start = document.createElement("button");
    start.type = "button";
    start.className = "start";
    start.textContent = "Start the interactive brain";
    start.addEventListener("click", () => {
      if (startBrain(figure, JSON.parse(packed.content.textContent))) start.remove();
      else start.replaceWith("This browser cannot draw it: it has no WebGL.");
    });
    figure.querySelector(".plate").before(start);
  }
}

function startBrain(figure, data) {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) return false;

  const unpack = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Kind(bytes.buffer);
  };
  const scaled = (text) => Float32Array.from(unpack(text, Int16Array), (n) => n * data.unit);
  const compile = (kind, source) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    return shader;
  };
  const program = gl.createProgram();
  gl.attachShader(program, compile(gl.VERTEX_SHADER, `
    attribute vec3 point, normal;
    attribute vec4 value; // cosine and sine, or number and 0; whether measured; sulci
    uniform mat3 turn;
    uniform vec3 middle;
    uniform vec2 zoom;
    varying vec4 seen;
    varying float light;
    void main() {
      vec3 at = turn * (point - middle);
      gl_Position = vec4(at.xy * zoom, -at.z / 400.0, 1.0);
      light = 0.5 + 0.5 * max(0.0, (turn * normal).z);
      seen = value;
    }`));
  gl.attachShader(program, compile(gl.FRAGMENT_SHADER, `
    precision mediump float;
    uniform sampler2D colors;
    uniform float cyclic, line;
    varying vec4 seen;
    varying float light;
    void main() {
      vec2 number = seen.xy / max(seen.z, 0.001);
      float share = cyclic > 0.5 ? fract(atan(number.y, number.x) / 6.2831853 + 1.0) : number.x;
      vec3 grey = vec3(0.74 - 0.2 * (2.0 * seen.w - 1.0));
      vec3 color = seen.z > 0.5 ? texture2D(colors, vec2(share, 0.5)).rgb : grey;
      gl_FragColor = vec4(line > 0.5 ? vec3(0.0) : color * light, 1.0);
    }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const attribute = (name) => gl.getAttribLocation(program, name);
  const store = (values, target = gl.ARRAY_BUFFER) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, values, gl.STATIC_DRAW);
    return buffer;
  };
  const feed = (name, buffer, size) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(attribute(name));
    gl.vertexAttribPointer(attribute(name), size, gl.FLOAT, false, 0, 0);
  };

  const sides = ["left", "right"].map((side) => {
    const points = scaled(data.points[side]);
    const faces = unpack(data.faces[side], Uint16Array);
    return {
      side,
      faces: store(faces, gl.ELEMENT_ARRAY_BUFFER),
      nFaces: faces.length,
      sulci: unpack(data.sulci[side], Uint8Array),
      points: store(points),
      normals: store(findNormals(points, faces)),
      values: gl.createBuffer(),
      lines: data.borders.map((borders) => {
        const line = scaled(borders[side]);
        return { buffer: store(line), n: line.length / 3 };
      }),
    };
  });
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const name of ["WRAP_S", "WRAP_T"])
    gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}`], gl.CLAMP_TO_EDGE);
  for (const name of ["MIN", "MAG"])
    gl.texParameteri(gl.TEXTURE_2D, gl[`TEXTURE_${name}_FILTER`], gl.LINEAR);
  gl.enable(gl.DEPTH_TEST);
  gl.clearColor(1, 1, 1, 1);

  // Around the vertical axis, then up or down, in degrees; and which hemispheres are there.
  const views = {
    "From behind": [0, 0], "From the left": [-90, 0], "From the right": [90, 0],
    "From the front": [180, 0], "From above": [0, 90], "From below": [180, -90],
    "Left, inside": [90, 0, "left"], "Right, inside": [-90, 0, "right"],
  };
  let turned = 0, raised = 0, only, zoom = 1, map = data.maps[0];

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [a, b] = [turned, raised].map((degrees) => (degrees * Math.PI) / 180);
    // From behind x points to the right, z up and the front away from the viewer.
    const right = [Math.cos(a), Math.sin(a), 0];
    const back = [Math.sin(a) * Math.cos(b), -Math.cos(a) * Math.cos(b), Math.sin(b)];
    const up = [
      back[1] * right[2] - back[2] * right[1],
      back[2] * right[0] - back[0] * right[2],
      back[0] * right[1] - back[1] * right[0],
    ];
    const columns = [0, 1, 2].flatMap((axis) => [right[axis], up[axis], back[axis]]);
    gl.uniformMatrix3fv(uniform("turn"), false, columns);
    // So many pixels to the mm that the brain fits in from every side.
    const scale = 2 * zoom * Math.min(canvas.width / 240, canvas.height / 230);
    gl.uniform2f(uniform("zoom"), scale / canvas.width, scale / canvas.height);
    gl.uniform3f(uniform("middle"), only === "left" ? -45 : only === "right" ? 45 : 0, -18, 8);
    gl.uniform1f(uniform("cyclic"), map.cyclic ? 1 : 0);
    for (const part of sides) {
      if (only && part.side !== only) continue;
      feed("point", part.points, 3);
      feed("normal", part.normals, 3);
      feed("value", part.values, 4);
      gl.uniform1f(uniform("line"), 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.faces);
      gl.drawElements(gl.TRIANGLES, part.nFaces, gl.UNSIGNED_SHORT, 0);
      const lines = map.borders === null ? undefined : part.lines[map.borders];
      if (!lines || !lines.n) continue;
      gl.disableVertexAttribArray(attribute("normal"));
      gl.disableVertexAttribArray(attribute("value"));
      feed("point", lines.buffer, 3);
      gl.uniform1f(uniform("line"), 1);
      gl.drawArrays(gl.LINES, 0, lines.n);
    }
  };

  const bar = document.createElement("canvas");
  const legend = document.createElement("p");
  const show = (number) => {
    map = data.maps[number];
    for (const part of sides) {
      const shares = unpack(map.values[part.side], Int16Array);
      const values = new Float32Array(4 * shares.length);
      shares.forEach((share, i) => {
        const known = share >= 0 ? 1 : 0;
        const number = Math.max(share, 0) / data.full;
        const angle = 2 * Math.PI * number;
        values[4 * i] = known * (map.cyclic ? Math.cos(angle) : number);
        values[4 * i + 1] = known * (map.cyclic ? Math.sin(angle) : 0);
        values[4 * i + 2] = known;
        values[4 * i + 3] = part.sulci[i] / 255;
      });
      gl.bindBuffer(gl.ARRAY_BUFFER, part.values);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    }
    const colors = unpack(data.colors[map.colors], Uint8Array);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, colors);
    bar.width = 256;
    bar.height = 1;
    const pixels = bar.getContext("2d").createImageData(256, 1);
    for (let i = 0; i < 256; i++) pixels.data.set([...colors.slice(3 * i, 3 * i + 3), 255], 4 * i);
    bar.getContext("2d").putImageData(pixels, 0, 0);
    const ticks = document.createElement("span");
    ticks.append(...map.ticks.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    legend.replaceChildren(map.label, bar, ticks);
    canvas.setAttribute("aria-label", `${map.name}, on the inflated cortex. Arrow keys turn it, plus and minus zoom.`);
    draw();
  };

  const turn = (right, up) => {
    turned = (turned + right) % 360;
    raised = Math.max(-90, Math.min(90, raised + up));
    draw();
  };
  const magnify = (factor) => {
    zoom = Math.max(0.5, Math.min(8, zoom * factor));
    draw();
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn(-event.movementX / 2, event.movementY / 2);
  });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => turn(-10, 0), ArrowRight: () => turn(10, 0),
      ArrowUp: () => turn(0, 10), ArrowDown: () => turn(0, -10),
      "+": () => magnify(1.2), "-": () => magnify(1 / 1.2),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  const choice = (name, options, change) => {
    const select = document.createElement("select");
    options.forEach((text, i) => select.append(new Option(text, i)));
    select.addEventListener("change", () => change(Number(select.value)));
    const label = document.createElement("label");
    label.append(`${name} `, select);
    return label;
  };
  const press = (text, name, act) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.setAttribute("aria-label", name);
    button.addEventListener("click", act);
    return button;
  };
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.append(
    choice("Map", data.maps.map((one) => one.name), show),
    choice("View", Object.keys(views), (number) => {
      [turned, raised, only] = Object.values(views)[number];
      draw();
    }),
    press("+", "Zoom in", () => magnify(1.2)),
    press("−", "Zoom out", () => magnify(1 / 1.2)),
  );
  legend.className = "legend";
  figure.querySelector(".plate").replaceChildren(canvas, legend);
  figure.querySelector(".plate").before(controls);
  new ResizeObserver(draw).observe(canvas);
  show(0);
  canvas.focus();
  return true;
}

function findNormals(points, faces) {
  const normals = new Float32Array(points.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [0, 1, 2].map((corner) => 3 * faces[f + corner]);
    const u = [0, 1, 2].map((axis) => points[b + axis] - points[a + axis]);
    const v = [0, 1, 2].map((axis) => points[c + axis] - points[a + axis]);
    const across = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) across.forEach((value, axis) => (normals[corner + axis] += value));
  }
  for (let i = 0; i < normals.length; i += 3) {
    const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
    for (let axis = 0; axis < 3; axis++) normals[i + axis] /= length;
  }
  return normals;
}
