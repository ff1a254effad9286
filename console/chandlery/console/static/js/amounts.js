// Amounts as a person reads them, digit for digit as the command line prints them.

/** As Python's `f"{value:.{digits}f}"`: exact ties go to the even digit, where toFixed goes away from zero. */
export function fixed(value, digits) {
  const plain = value.toFixed(digits);
  if (!value.toFixed(digits + 1).endsWith("5")) return plain;
  const exact = Math.abs(value).toFixed(Math.min(digits + 60, 100));
  const end = exact.indexOf(".") + 1 + digits;
  if (!/^50*$/.test(exact.slice(end))) return plain;
  const down = exact.slice(0, end).replace(/\.$/, "");
  if (Number(down.at(-1)) % 2 === 1) return plain;
  return value < 0 ? `-${down}` : down;
}

/** `85 µs`, `4.20 ms`, `1.27 s`; a dash for null. */
export function durationUs(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 1_000) return `${fixed(value, 0)} µs`;
  if (size < 10_000) return `${fixed(value / 1_000, 2)} ms`;
  if (size < 1_000_000) return `${fixed(value / 1_000, 1)} ms`;
  return `${fixed(value / 1_000_000, 2)} s`;
}

/** `312 kB`, `9.8 MB`; a dash for 0. */
export function sizeBytes(value) {
  if (!(value > 0)) return "–";
  if (value < 1_000_000) return `${fixed(value / 1_000, 0)} kB`;
  if (value < 1_000_000_000) return `${fixed(value / 1_000_000, 1)} MB`;
  return `${fixed(value / 1_000_000_000, 2)} GB`;
}

/** A size that grew or shrank, with its sign: `+1.2 MB/h`. */
export function growth(bytesPerHour) {
  if (bytesPerHour === null || bytesPerHour === undefined) return "–";
  if (Math.abs(bytesPerHour) < 500) return "±0";
  return `${bytesPerHour < 0 ? "−" : "+"}${sizeBytes(Math.abs(bytesPerHour))}/h`;
}

export function count(value) {
  return Number(value).toLocaleString("en-US");
}

export function rate(value, unit) {
  return `${value >= 100 ? count(Math.round(value)) : fixed(value, 1)}${unit}`;
}

export function percent(share) {
  return `${fixed(share * 100, 0)}%`;
}

/** Time of day, UTC, to the second; a dash for 0 and below. */
export function clockTime(ms) {
  const date = new Date(ms);
  return ms > 0 && !Number.isNaN(date.getTime()) ? date.toISOString().slice(11, 19) : "–";
}

/** Date and time, UTC, ISO 8601 with milliseconds; a dash for 0 and below. */
export function timestamp(ms) {
  const date = new Date(ms);
  return ms > 0 && !Number.isNaN(date.getTime()) ? date.toISOString() : "–";
}

/** `12 s`, `3 min`, `5 h`, `2 d`: a length of time to look at. */
export function age(ms) {
  if (ms === null || ms === undefined) return "–";
  const seconds = Math.max(0, ms / 1000);
  if (seconds < 1) return "< 1 s";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
