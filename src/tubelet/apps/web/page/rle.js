// Masks at rest: COCO's compressed run-length code, column by column.

/**
 * Where runs end, Int32Array: background first, then object, in turn; the last is height x width.
 * A number is characters of 48 + six bits: five of the number, lowest first, and one that says "more follow";
 * from the fourth number on it is the difference from the one two before.
 */
export function runEnds(counts) {
  const ends = new Int32Array(counts.length);
  let number = 0, position = 0, last = 0, before = 0, place = 0;
  while (place < counts.length) {
    let value = 0, shift = 0, symbol;
    do {
      symbol = counts.charCodeAt(place++) - 48;
      value |= (symbol & 31) << shift;
      shift += 5;
    } while (symbol & 32);
    if (symbol & 16) value |= -1 << shift;
    if (number > 2) value += before;
    before = last;
    last = value;
    position += value;
    ends[number++] = position;
  }
  return ends.subarray(0, number);
}

/** The code of runs of pixels, column by column: background first, then object, in turn. */
export function encode(runs) {
  let counts = "";
  runs.forEach((run, number) => {
    let value = number > 2 ? run - runs[number - 2] : run, more;
    do {
      let symbol = value & 31;
      value >>= 5;
      more = symbol & 16 ? value !== -1 : value !== 0;
      if (more) symbol |= 32;
      counts += String.fromCharCode(symbol + 48);
    } while (more);
  });
  return counts;
}

/** Whether the pixel is in the mask. */
export function covers(ends, height, x, y) {
  const pixel = x * height + y;
  let low = 0, high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] <= pixel) low = middle + 1; else high = middle;
  }
  return low < ends.length && (low & 1) === 1;
}

/** Pixels in the mask. */
export function area(ends) {
  let total = 0;
  for (let k = 1; k < ends.length; k += 2) total += ends[k] - ends[k - 1];
  return total;
}

/** The tight box [x1, y1, x2, y2], half-open; null for an empty mask. */
export function box(ends, height) {
  let left = Infinity, right = -1, top = height, bottom = 0;
  for (let k = 1; k < ends.length; k += 2) {
    const start = ends[k - 1], end = ends[k] - 1;
    if (end < start) continue;
    const first = Math.floor(start / height), last = Math.floor(end / height);
    left = Math.min(left, first);
    right = Math.max(right, last);
    if (last > first) { top = 0; bottom = height; continue; }
    top = Math.min(top, start - first * height);
    bottom = Math.max(bottom, end - first * height + 1);
  }
  return right < 0 ? null : [left, top, right + 1, bottom];
}

/**
 * The mask as upright strokes on a grid of every `step`-th pixel: { first: Int32Array [columns + 1], tops, bottoms };
 * column c holds the strokes first[c] .. first[c + 1] - 1, each from tops[k] up to, not including, bottoms[k].
 */
export function strokes(ends, height, width, step = 1) {
  const columns = Math.ceil(width / step);
  const first = new Int32Array(columns + 1);
  const tops = [], bottoms = [];
  let column = 0;
  for (let k = 1; k < ends.length; k += 2) {
    for (let start = ends[k - 1]; start < ends[k];) {
      const x = Math.floor(start / height);
      const top = start - x * height;
      const bottom = Math.min(top + ends[k] - start, height);
      start += bottom - top;
      if (x % step) continue;
      const upper = Math.ceil(top / step), lower = Math.ceil(bottom / step);
      if (upper >= lower) continue;
      while (column <= x / step) first[column++] = tops.length;
      tops.push(upper);
      bottoms.push(lower);
    }
  }
  while (column <= columns) first[column++] = tops.length;
  return { first, tops, bottoms };
}
