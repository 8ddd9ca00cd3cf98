// What a value was at any moment. Moments are counts of events, in rising order.

export class Series {
  constructor() {
    this.moments = [];
    this.values = [];
  }

  push(moment, value) {
    const last = this.moments.length - 1;
    if (last >= 0 && this.moments[last] === moment) this.values[last] = value;
    else {
      this.moments.push(moment);
      this.values.push(value);
    }
  }

  /** How many entries lie at or before `moment`. */
  count(moment) {
    let low = 0;
    let high = this.moments.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.moments[middle] <= moment) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The value at `moment`, or `otherwise` before the first. */
  at(moment, otherwise = undefined) {
    const count = this.count(moment);
    return count ? this.values[count - 1] : otherwise;
  }

  get last() {
    return this.values.at(-1);
  }
}
