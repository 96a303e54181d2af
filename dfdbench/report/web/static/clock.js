// One clock for many videos: they play, pause, loop and seek together, within a frame of each other.

const LATE = 0.6; // frames by which a video may be off before its speed is changed
const LOST = 2.5; // frames from which on it is put back into place
const PATIENCE = 1500; // milliseconds to wait for videos that load or seek

export class Clock {
  /** `onTick(clock)` is called for every picture shown and after every change. */
  constructor(onTick) {
    Object.assign(this, { videos: [], fps: 8, frames: 1, time: 0, rate: 1, loop: true });
    Object.assign(this, { playing: false, held: false, waiting: 0, last: 0, onTick });
    const tick = (now) => {
      this.#tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  get duration() {
    return this.frames / this.fps;
  }

  /** The number of the frame shown, from 0. */
  get frame() {
    return Math.max(0, Math.min(this.frames - 1, Math.floor(this.time * this.fps + 1e-6)));
  }

  /** Take other videos; the time goes on where it is. */
  show(videos, fps, frames) {
    for (const video of this.videos) if (!videos.includes(video)) video.pause();
    Object.assign(this, { videos, fps, frames, time: Math.min(this.time, frames / fps - 1e-3) });
    this.#gather();
    this.onTick(this);
  }

  play() {
    if (this.time >= this.duration - 0.5 / this.fps) this.time = 0;
    this.playing = true;
    this.#gather();
    this.onTick(this);
  }

  pause() {
    this.playing = false;
    this.seek(this.frame);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Go to the middle of a frame. */
  seek(frame) {
    const wanted = Math.max(0, Math.min(this.frames - 1, frame));
    this.time = (wanted + 0.5) / this.fps;
    this.#gather();
    this.onTick(this);
  }

  setRate(rate) {
    this.rate = rate;
    for (const video of this.videos) video.playbackRate = rate;
  }

  /** Stop the videos while nobody sees them, without a change of `playing`. */
  hold(held) {
    if (held === this.held) return;
    this.held = held;
    this.#gather();
  }

  /** Where a video should be: one that is shorter waits at its last frame. */
  #target(video) {
    const end = Number.isFinite(video.duration) ? video.duration : this.duration;
    return Math.max(0, Math.min(this.time, end - 0.5 / this.fps));
  }

  #gather() {
    for (const video of this.videos) {
      video.pause();
      const target = this.#target(video);
      if (video.readyState > 0 && Math.abs(video.currentTime - target) > 1e-3) {
        video.currentTime = target;
      }
    }
    this.waiting = performance.now();
  }

  #ready() {
    return this.videos.every((video) => video.error || (!video.seeking && video.readyState >= 2));
  }

  #tick(now) {
    const passed = Math.min(0.1, (now - this.last) / 1000);
    this.last = now;
    if (!this.playing || this.held || !this.videos.length) return;
    if (this.waiting) {
      if (!this.#ready() && now - this.waiting < PATIENCE) return;
      this.waiting = 0;
      for (const video of this.videos) this.#start(video);
      return;
    }
    this.time += passed * this.rate;
    if (this.time >= this.duration) {
      this.time = this.loop ? 0 : this.duration - 0.5 / this.fps;
      if (!this.loop) this.playing = false;
      this.#gather();
    } else {
      for (const video of this.videos) this.#correct(video);
    }
    this.onTick(this);
  }

  #start(video) {
    const target = this.#target(video);
    if (video.readyState > 0 && Math.abs(video.currentTime - target) > 0.5 / this.fps) {
      video.currentTime = target; // it was not loaded when the others were put in place
    }
    video.playbackRate = this.rate;
    if (target >= this.time - 1e-3) video.play().catch(() => {});
  }

  #correct(video) {
    if (video.error || video.readyState < 2 || video.seeking) return;
    const target = this.#target(video);
    if (target < this.time) {
      if (!video.paused) video.pause();
      return;
    }
    const off = (video.currentTime - target) * this.fps; // in frames
    if (Math.abs(off) > LOST) {
      video.currentTime = target;
      video.playbackRate = this.rate;
    } else {
      const turn = Math.abs(off) > LATE ? Math.max(-0.5, Math.min(0.5, off * 0.3)) : 0;
      const rate = this.rate * (1 - turn);
      if (Math.abs(video.playbackRate - rate) > 0.02 * this.rate) video.playbackRate = rate;
    }
    if (video.paused) video.play().catch(() => {});
  }
}
