// A generation's source without the addon: the test says what comes, as the engine would.
'use strict';

/** Obeys demand and bound like the addon's queue: `push` is the engine's side. */
class FakeSource {
  constructor(capacity = 64) {
    Object.assign(this, { capacity, queue: [], wanted: 0, lifted: false, ended: null });
    Object.assign(this, { calls: [], progress: null, waiting: null, handedOver: 0 });
  }

  /** Unread chunks: those queued, and those handed over but not asked past. */
  get unread() {
    return this.queue.length + this.handedOver;
  }

  get paused() {
    return !this.lifted && this.unread >= this.capacity;
  }

  push(...chunks) {
    this.queue.push(...chunks);
    this.#wake();
  }

  report(done, total) {
    this.progress = [done, total];
    this.#wake();
  }

  end(result) {
    this.ended = { result };
    this.#wake();
  }

  fail(error, partial = null) {
    this.ended = { error, partial };
    this.#wake();
  }

  demand(count) {
    this.calls.push(`demand ${count}`);
    this.wanted = count;
    this.handedOver = 0;
    this.#wake();
  }

  lift() {
    this.calls.push('lift');
    this.lifted = true;
    this.#wake();
  }

  cancel(keep) {
    this.calls.push(`cancel ${keep ? 'keep' : 'reject'}`);
    this.onCancel?.(keep);
  }

  next() {
    return new Promise((resolve) => {
      this.waiting = resolve;
      this.#wake();
    });
  }

  #wake() {
    const batch = this.waiting && this.#batch();
    if (!batch) return;
    this.waiting(batch);
    this.waiting = null;
  }

  #batch() {
    const batch = { progress: this.progress, chunks: [], full: false, end: this.ended };
    this.progress = null;
    const limit = this.ended || this.lifted ? Infinity : this.wanted;
    batch.chunks = this.queue.splice(0, limit);
    if (batch.chunks.length > 0 || batch.progress || batch.end) {
      if (batch.chunks.length > 0) this.wanted = 0;
      this.handedOver += batch.chunks.length;
      return batch;
    }
    return this.paused && this.wanted === 0 ? { ...batch, full: true } : null;
  }
}

module.exports = { FakeSource };
