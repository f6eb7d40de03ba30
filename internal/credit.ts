/**
 * Flow control as arithmetic: how many items a worker may hold, and how many
 * values a peer may send. The clock is passed in.
 *
 * @module
 */

/** How much work is kept queued at each worker, in ms. */
const QUEUED_MS = 20;
/** Rates are measured over at least so long, in ms; from afar, half the way. */
const MEASURE_MS = 1;
/**
 * The best rate counts for so many round trips: where a segment of TCP was lost,
 * nothing comes for one or two, and then all at once.
 */
const PEAK_ROUND_TRIPS = 4;
/**
 * Items that take so long, in ms, are no matter of a slow way or a busy machine:
 * nobody needs more than one of them in advance.
 */
const HEAVY_MS = 500;
/**
 * A way that may have become longer is measured so often before that is believed:
 * the first answers may have waited behind what was sent before.
 */
const FRESH_ROUND_TRIPS = 4;
/** Where it turns out so many times as long, it is measured so often again. */
const LONGER = 2;
/** The largest window. */
export const MAX_WINDOW = 4096;
/** The places of a pool's first workers together, and of every further one. */
const POOL_PLACES = 4096, WORKER_PLACES = 1024;
/** How many of them are enough for one of many workers that are near ... */
const NEAR_PLACES = 224;
/** ... which is this, in ms: a busy machine on the same wire takes as long ... */
const NEAR_MS = 20;
/** ... and for every further ms. */
const PLACES_A_MS = 24;
/** Queues that are this long are refilled when half of them is done ... */
const LONG_QUEUE = 64;
/** ... or so many items are. */
const REFILL = 256;

/** How many items of one way may be at so many workers, or unread. */
export function placesFor(workers: number): number {
  return Math.max(POOL_PLACES, workers * WORKER_PLACES);
}

/**
 * How many of them one worker may hold: a quarter stays for what is unread, or
 * the places would be what is waited for, and they come free one by one.
 */
export function shareOf(workers: number): number {
  return Math.floor(placesFor(workers) * 3 / 4 / Math.max(1, workers));
}

/**
 * How many of these are worth while at one that is `rttMs` away. In many long
 * queues items live so long that the garbage collector copies them all, which
 * costs more than shorter batches do.
 */
export function usefulShareOf(workers: number, rttMs: number): number {
  const enough = NEAR_PLACES + Math.max(0, rttMs - NEAR_MS) * PLACES_A_MS;
  const alone = POOL_PLACES * 3 / 4 / Math.max(1, workers);
  return Math.floor(Math.min(shareOf(workers), Math.max(enough, alone)));
}

/**
 * How many items the dispatcher keeps at one worker: enough that the worker is
 * never idle, and no more, so that items balance over workers. It starts at one
 * more than the worker executes at once, doubles when the worker runs dry, and
 * never stays above what the worker settles in about 20 ms (and a round trip, or
 * two from afar). Once it is full, a long queue is refilled when half of it is
 * done: so many items share a frame and a write, and the worker has the other
 * half meanwhile.
 */
export class AdaptiveWindow {
  /** The items that may be at the worker. */
  size: number;
  /** Once it was full: the items at which there is room again. */
  refillAt: number;
  /** The shortest round trip seen, in ms; see {@linkcode sampled}. */
  rttMs = 0;
  readonly #concurrency: number;
  readonly #limit: number;
  #since = 0;
  #settled = 0;
  /** The fewest items that it held at a settlement since then. */
  #low = Infinity;
  /** Since when the worker has nothing; 0: it has something, or had just now. */
  #emptyAt = 0;
  /** The best rate lately, in items a ms, and when it was measured. */
  #peak = 0;
  #peakAt = 0;
  /** The best rate of a sample since the way was last in doubt. */
  #best = 0;
  /** How many round trips are still to be measured, and the shortest of them. */
  #fresh = 0;
  #freshMs = Infinity;
  /** All that it has settled. */
  #total = 0;
  /** How many it had been sent at some time, and when that was. */
  #sent = 0;
  #sentAt = 0;

  /**
   * @param concurrency The items that the worker executes at once.
   * @param limit The worker's own limit.
   */
  constructor(concurrency: number, limit: number) {
    this.#concurrency = concurrency;
    this.#limit = Math.max(1, Math.min(limit, MAX_WINDOW));
    this.size = Math.min(concurrency + 1, this.#limit);
    this.refillAt = this.size - 1;
  }

  /** Whether the worker seems to be far away. */
  get isFar(): boolean {
    return this.rttMs > NEAR_MS;
  }

  /** A round trip was measured. The shortest counts: others have waited somewhere. */
  measured(rttMs: number): void {
    this.rttMs = this.rttMs === 0 ? rttMs : Math.min(this.rttMs, rttMs);
    if (this.#fresh === 0) return;
    this.#freshMs = Math.min(this.#freshMs, rttMs);
    if (--this.#fresh > 0) return;
    const isLonger = this.#freshMs > LONGER * this.rttMs;
    this.rttMs = this.#freshMs;
    // Perhaps it still becomes longer, and the rate can't fall any further.
    if (isLonger) this.#doubt();
  }

  /**
   * The worker's rate was sampled, over about a second. Where it has fallen to
   * less than half, the way may have become longer, and a window for the old one
   * would never fill it: then the shortest round trip is found anew.
   *
   * @param rate The rate, in any unit.
   * @returns Whether to measure a round trip.
   */
  sampled(rate: number): boolean {
    if (rate === 0) return false;
    // Not meanwhile: a rate that swings would begin it again and again.
    if (this.#fresh === 0) this.#best = Math.max(this.#best, rate);
    if (rate < this.#best / 2) {
      this.#best = rate;
      this.#doubt();
    }
    return this.isFar || this.#fresh > 0;
  }

  #doubt(): void {
    this.#fresh = FRESH_ROUND_TRIPS;
    this.#freshMs = Infinity;
  }

  /** The worker gets an item after it had none: the time between is no work. */
  busy(now: number): void {
    // Settled and given another before the settlement was told: no time passed.
    if (this.#since === 0) this.#since = now;
    else if (this.#emptyAt > 0) this.#since += now - this.#emptyAt;
    this.#emptyAt = 0;
  }

  /**
   * The worker settled some items.
   *
   * @param count How many.
   * @param inFlight How many it still holds.
   * @param now The time, in ms.
   * @param share The places that are this worker's.
   */
  settled(
    count: number,
    inFlight: number,
    now: number,
    share: number = MAX_WINDOW,
  ): void {
    this.#settled += count;
    this.#total += count;
    // One that was sent since then has been there and back: the way isn't longer,
    // though PINGs may all have come upon the few items that are slow.
    if (this.#total > this.#sent) {
      this.#freshMs = Math.min(this.#freshMs, now - this.#sentAt);
      this.#sent = this.#total + inFlight;
      this.#sentAt = now;
    }
    this.#low = Math.min(this.#low, inFlight);
    if (inFlight === 0) this.#emptyAt = now;
    const elapsed = now - this.#since;
    const { rttMs } = this;
    if (elapsed < MEASURE_MS) return;
    const isEmptied = this.#low === 0 && this.#settled >= this.size;
    const farMs = this.isFar ? rttMs : 0;
    // Unless it is nearer than it seemed.
    if (elapsed < farMs / 2 && !isEmptied) return;
    let rate = this.#settled / elapsed;
    if (rate < this.#peak && now - this.#peakAt < PEAK_ROUND_TRIPS * farMs) {
      rate = this.#peak;
    } else {
      this.#peak = rate;
      this.#peakAt = now;
    }
    // What is on the way, there or back, isn't queued at the worker. Where a
    // segment was lost, that takes a round trip more; but what is measured now is
    // to wait behind nothing; and where an item takes as long as a round trip, that
    // may have been a PING that waited for a handler.
    const isSlow = rate * Math.min(rttMs, HEAVY_MS) <= 1;
    const lostMs = isSlow || this.#fresh > 0 ? 0 : farMs;
    const wayMs = rttMs + lostMs;
    const isDry = this.#low <= this.#concurrency + rate * wayMs;
    // Of one that is dry the rate tells how few it was sent, not what it can do.
    const mostMs = QUEUED_MS + wayMs + (isDry ? 2 * lostMs : 0);
    const queued = Math.max(1, Math.ceil(rate * mostMs));
    const grown = isDry ? this.size * 2 : this.size;
    // All that it may hold came back at once and nothing was left: it waits for
    // us, on a slow way or a busy machine, whatever rate that makes.
    const isStarved = isEmptied && rate * HEAVY_MS > this.#concurrency;
    const most = isStarved ? grown : this.#concurrency + queued;
    const atMost = Math.min(
      this.#limit,
      Math.max(share, this.#concurrency + 1),
    );
    this.size = Math.min(atMost, grown, most);
    const queue = this.size - this.#concurrency - Math.ceil(rate * wayMs);
    this.refillAt = this.size -
      (queue < LONG_QUEUE ? 1 : Math.min(queue >> 1, REFILL));
    this.#since = now;
    this.#settled = 0;
    this.#low = Infinity;
  }
}

/**
 * What a peer may send, as totals since the connection began: values, and bytes
 * of payload. Totals can't drift: a credit that comes twice changes nothing.
 */
export class CreditGrant {
  /** Values that the peer may have sent in all. */
  values = 0;
  /** Payload bytes after which it may start no further value. */
  bytes = 0;
  #takenValues = 0;
  #takenBytes = 0;
  readonly #windowValues: number;
  readonly #windowBytes: number;

  /**
   * @param windowValues Values that may be unread here.
   * @param windowBytes Payload bytes that may be unread here.
   */
  constructor(windowValues: number, windowBytes: number) {
    this.#windowValues = windowValues;
    this.#windowBytes = windowBytes;
  }

  /** A value was read here. */
  take(bytes: number): void {
    this.#takenValues++;
    this.#takenBytes += bytes;
  }

  /** Whether a new credit is due: half a window was read since the last. */
  get due(): boolean {
    return this.#takenValues + this.#windowValues - this.values >=
        this.#windowValues / 2 ||
      this.#takenBytes + this.#windowBytes - this.bytes >=
        this.#windowBytes / 2;
  }

  /** Raises {@linkcode values} and {@linkcode bytes} to a full window. */
  renew(): void {
    this.values = this.#takenValues + this.#windowValues;
    this.bytes = this.#takenBytes + this.#windowBytes;
  }
}

/** The other end of a {@linkcode CreditGrant}. */
export class CreditUse {
  #values = 0;
  #bytes = 0;
  #sentValues = 0;
  #sentBytes = 0;

  /** Whether a value may be sent. */
  get open(): boolean {
    return this.#sentValues < this.#values && this.#sentBytes < this.#bytes;
  }

  /** A value was sent (by the sender) or came (at the one who granted). */
  sent(bytes: number): void {
    this.#sentValues++;
    this.#sentBytes += bytes;
  }

  /** A credit came. */
  grant(values: number, bytes: number): void {
    this.#values = Math.max(this.#values, values);
    this.#bytes = Math.max(this.#bytes, bytes);
  }
}
