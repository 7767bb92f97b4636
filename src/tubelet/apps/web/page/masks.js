// A result in memory, and its masks on a canvas.

import { area, box, covers, runEnds, strokes } from "/page/rle.js";

const TINT = 0.42; // share of the identity's colour within a mask, as in overlay.mp4
const SPOTLIGHT_TINT = 0.16;
const VEIL = 0x8c000000; // over what is not followed, when one object is followed alone

/** What the model found in a video. Times in seconds, frames from 0. */
export class Result {
  constructor(told) {
    [this.height, this.width] = told.size;
    this.length = told.length;
    this.times = told.times;
    this.shots = told.shots ?? [];
    this.classes = told.classes;
    this.found = told.tracks.map((track) => new Track(track, this.height)); // by the model
    this.tracks = this.found;
  }

  /** What people have made of it, as the server tells: the tracks that have changed, and which there are. */
  update({ classes, ids, tracks }) {
    const now = new Map(this.tracks.map((track) => [track.id, track]));
    for (const track of tracks) now.set(track.id, new Track(track, this.height));
    this.tracks = ids.map((id) => now.get(id));
    this.classes = classes;
  }

  /** Puts a copy of a track in its place, to be changed until the server tells what has become of it. */
  copy(id) {
    const old = this.track(id), copy = new Track({ ...old, counts: [...old.counts] }, this.height);
    this.tracks = this.tracks.map((track) => (track === old ? copy : track));
    return copy;
  }

  track(id) {
    return this.tracks.find((track) => track.id === id) ?? null;
  }

  /** The last frame that is shown at or before a time. */
  frameAt(seconds) {
    let low = 0, high = this.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= seconds + 0.001) low = middle; else high = middle - 1;
    }
    return low;
  }

  /** A time well within a frame, so that no rounding leads to its neighbour. */
  timeWithin(frame) {
    const next = this.times[frame + 1] ?? this.times[frame] + 1 / 30;
    return this.times[frame] + Math.min((next - this.times[frame]) / 2, 0.02);
  }

  get seconds() {
    const last = this.times[this.length - 1];
    return last + (this.length > 1 ? last / (this.length - 1) : 0);
  }
}

class Track {
  constructor(told, height) {
    Object.assign(this, { drawn: [] }, told); // drawn: frames in which a person drew it
    this.height = height;
    this.pixel = abgr(this.colour, 255);
    this.decoded = { frame: -1 };
  }

  /** { ends, area, box } in a frame, null where absent. The last frame asked for is remembered. */
  at(frame) {
    if (this.decoded.frame !== frame) {
      const counts = this.counts[frame];
      const ends = counts === null ? null : runEnds(counts);
      this.decoded = { frame, mask: ends && { ends, area: area(ends), box: box(ends, this.height), grids: new Map() } };
    }
    return this.decoded.mask?.box ? this.decoded.mask : null;
  }

  /** Changes the mask of a frame; null where absent. */
  set(frame, counts) {
    this.counts[frame] = counts;
    this.decoded = { frame: -1 };
  }

  /** Pieces [first, last] of frames in which the object is seen. */
  spans() {
    const found = [];
    this.counts.forEach((counts, frame) => {
      if (counts === null) return;
      if (found.length && found.at(-1)[1] === frame - 1) found.at(-1)[1] = frame;
      else found.push([frame, frame]);
    });
    return found;
  }
}

/** The objects of a frame that are to be drawn, largest first so that small ones lie on top. */
export function visible(result, frame, { threshold, alone, hidden }) {
  return result.tracks
    .filter((track) => track.score >= threshold && (alone === null || track.id === alone) && track.id !== hidden && track.at(frame))
    .sort((a, b) => b.at(frame).area - a.at(frame).area);
}

/** The smallest object at a pixel, else null. */
export function objectAt(result, frame, options, x, y) {
  return visible(result, frame, options).findLast((track) => covers(track.at(frame).ends, result.height, x, y)) ?? null;
}

/** Paints masks on a canvas of the video's size, or of a whole fraction of it where it is shown smaller. */
export class MaskCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  paint(result, frame, options, shownWidth) {
    const step = Math.max(1, Math.floor(result.width / Math.max(shownWidth, 1)));
    const columns = Math.ceil(result.width / step), rows = Math.ceil(result.height / step);
    if (this.canvas.width !== columns || this.canvas.height !== rows || !this.image) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.image = this.context.createImageData(columns, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const isAlone = options.alone !== null;
    const drawn = options.masks ? visible(result, frame, options) : [];
    this.pixels.fill(isAlone && drawn.length ? VEIL : 0);
    const width = Math.max(1, Math.round(Math.min(columns, rows) / 360));
    for (const track of drawn) {
      const mask = track.at(frame);
      if (!mask.grids.has(step)) mask.grids.set(step, strokes(mask.ends, result.height, result.width, step));
      const inner = abgr(track.colour, 255 * (isAlone ? SPOTLIGHT_TINT : TINT));
      paintMask(this.pixels, columns, mask.grids.get(step), inner, track.pixel, width);
    }
    this.context.putImageData(this.image, 0, 0);
  }
}

function paintMask(pixels, columns, grid, inner, outer, width) {
  const { first, tops, bottoms } = grid;
  for (let x = 0; x < columns; x++) {
    for (let k = first[x]; k < first[x + 1]; k++) {
      const top = tops[k], bottom = bottoms[k];
      const from = Math.min(top + width, bottom), to = Math.max(bottom - width, from);
      fill(pixels, columns, x, top, from, outer);
      fill(pixels, columns, x, from, to, inner);
      fill(pixels, columns, x, to, bottom, outer);
      paintSide(pixels, columns, grid, x, x - width, top, bottom, outer);
      paintSide(pixels, columns, grid, x, x + width, top, bottom, outer);
    }
  }
}

/** The part of a stroke beside which, in another column, nothing of the object is: its left or right rim. */
function paintSide(pixels, columns, { first, tops, bottoms }, x, other, top, bottom, colour) {
  let at = top;
  if (other >= 0 && other < columns) {
    for (let k = first[other]; k < first[other + 1] && tops[k] < bottom; k++) {
      if (bottoms[k] <= at) continue;
      fill(pixels, columns, x, at, Math.min(tops[k], bottom), colour);
      at = Math.max(at, bottoms[k]);
    }
  }
  fill(pixels, columns, x, at, bottom, colour);
}

function fill(pixels, columns, x, top, bottom, colour) {
  for (let place = top * columns + x, end = bottom * columns + x; place < end; place += columns) pixels[place] = colour;
}

/** "#rrggbb" as the number that a canvas's pixel is. */
function abgr(colour, alpha) {
  const rgb = parseInt(colour.slice(1), 16);
  return ((Math.round(alpha) << 24) | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}
