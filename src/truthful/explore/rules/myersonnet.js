// One item to the highest virtual value above 0, as src/truthful/mechanisms/myersonnet.py defines it.

function rule({ slopes, heights }) {
  const virtual = (bid, i) => Math.min(...slopes[i].map((group, g) =>
    Math.max(...group.map((slope, k) => slope * bid + heights[i][g][k]))));
  const inverse = (level, i) => Math.max(...slopes[i].map((group, g) =>
    Math.min(...group.map((slope, k) => (level - heights[i][g][k]) / slope))));

  return (bids) => {
    const virtuals = Array.from(bids, virtual);
    const allocation = new Float64Array(bids.length), payment = new Float64Array(bids.length);
    const highest = Math.max(...virtuals), winner = virtuals.indexOf(highest);
    if (highest > 0) {
      const rivals = Math.max(0, ...virtuals.filter((_, i) => i !== winner));
      allocation[winner] = 1;
      payment[winner] = Math.max(0, inverse(rivals, winner));
    }
    return { allocation, payment };
  };
}
