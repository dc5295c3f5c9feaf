// Where nothing was measured: the service was down, or its catalog away, or the pool closed. A line ends there.

// Points are usually as far apart as the service polls, or as a step is long; after so many of these some are missing.
const FACTOR = 3;
// What is usual is not seen in fewer.
const FEWEST = 4;

// *points* in order of {at}, in seconds, and one without values in each gap.
export function withGaps(points) {
  if (points.length < FEWEST) return points;
  const distances = points.slice(1).map(({ at }, before) => at - points[before].at).sort((a, b) => a - b);
  const usual = distances[Math.floor(distances.length / 2)];
  return points.flatMap((point, index) => {
    const next = points[index + 1];
    return next && next.at - point.at > FACTOR * usual ? [point, { at: point.at + usual }] : [point];
  });
}
