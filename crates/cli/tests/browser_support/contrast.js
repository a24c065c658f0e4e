// What the test of looks asks of a page: each text whose contrast with what lies behind it is less than WCAG AA wants.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const known = new Map();
const parse = (css) => {
  if (!known.has(css)) known.set(css, painted(css));
  return known.get(css);
};
const painted = (css) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = css;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const luminance = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (one, other) => {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
// What lies behind an element: the backgrounds of all around it, and of a picture's text the box in the same group.
const behind = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    const text = at instanceof SVGTextElement && at.getBoundingClientRect();
    const y = text && (text.top + text.bottom) / 2;
    for (const box of text ? at.parentElement.querySelectorAll(":scope > rect") : []) {
      const { top, bottom, left, right } = box.getBoundingClientRect();
      if (y < top || y > bottom || text.right < left || text.left > right) continue;
      const [r, g, b, a] = parse(getComputedStyle(box).fill);
      layers.push([r, g, b, a * Number(getComputedStyle(box).opacity)]);
    }
    layers.push(parse(getComputedStyle(at).backgroundColor));
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const failing = [];
const check = (element, style, words) => {
  // What cannot be pressed now is no text to be read.
  if (element.matches(":disabled, :disabled *")) return;
  const background = behind(element);
  const colour = over(parse(element instanceof SVGElement ? style.fill : style.color), background);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const found = ratio(colour, background);
  if (found < (isLarge ? 3 : 4.5)) {
    failing.push(`${found.toFixed(2)} ${element.tagName}.${element.getAttribute("class") ?? ""} ${words.trim().slice(0, 40)}`);
  }
};
let texts = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const isSeen = element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  if (!walker.currentNode.data.trim() || !isSeen || element.closest("title, script, option, .hidden")) continue;
  texts += 1;
  check(element, getComputedStyle(element), walker.currentNode.data);
}
for (const input of document.querySelectorAll("input, select")) {
  check(input, getComputedStyle(input), input.value ?? "");
  if (input.placeholder) check(input, getComputedStyle(input, "::placeholder"), input.placeholder);
}
return { texts, failing: [...new Set(failing)] };
