/** The last minute of what is looked at: one sample a second, kept for paths that are on the screen. */

const KEEP = 60;

/** @typedef {{handled: number, depth: number, last: number, rates: number[], depths: number[], seen: number}} Track */

class History {
  constructor() {
    /** @type {Map<string, Track>} */ this.tracks = new Map();
    this.at = performance.now();
    setInterval(() => this.sample(), 1000);
  }

  /** @param {string} path @param {{handled: number, depth: number}} stat */
  see(path, stat) {
    const track = this.tracks.get(path);
    if (track) Object.assign(track, { handled: stat.handled, depth: stat.depth });
    else this.tracks.set(path, { handled: stat.handled, depth: stat.depth, last: stat.handled, rates: [], depths: [], seen: 0 });
  }

  /** @param {string} path @returns {Track | undefined} */
  of(path) {
    const track = this.tracks.get(path);
    if (track) track.seen = 0;
    return track;
  }

  sample() {
    const now = performance.now();
    const seconds = Math.max(0.25, (now - this.at) / 1000);
    this.at = now;
    for (const [path, track] of this.tracks) {
      track.rates.push(Math.max(0, track.handled - track.last) / seconds);
      track.depths.push(track.depth);
      if (track.rates.length > KEEP) { track.rates.shift(); track.depths.shift(); }
      track.last = track.handled;
      // What nobody has drawn for two minutes is forgotten.
      if (++track.seen > 120) this.tracks.delete(path);
    }
  }
}

export const history = new History();

/** The messages a second of now. @param {string} path */
export function rateOf(path) {
  const rates = history.of(path)?.rates;
  if (!rates?.length) return null;
  const last = rates.slice(-3);
  return last.reduce((sum, one) => sum + one, 0) / last.length;
}
