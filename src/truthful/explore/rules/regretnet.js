// RegretNet's outcome, as src/truthful/mechanisms/regretnet.py defines it, in double precision.

const ACTIVATIONS = { Tanh: Math.tanh, ReLU: (t) => Math.max(t, 0), Sigmoid: sigmoid };

function rule({ activation, score_shapes, allocation, payment }, n, m) {
  const scores = perceptron(allocation, ACTIVATIONS[activation]);
  const fractions = perceptron(payment, ACTIVATIONS[activation]);
  const [rows, columns] = score_shapes[0];
  const width = score_shapes.at(-1)[1];
  const second = score_shapes.length > 1 ? rows * columns : 0; // where the scores of the softmax over items begin

  return (bids) => {
    const score = scores(bids);
    const allocation = new Float64Array(n * m);
    for (let j = 0; j < m; j++) {
      const chances = softmax(score, j, columns, n + 1); // over bidders and "nobody"
      for (let i = 0; i < n; i++) allocation[i * m + j] = chances[i];
    }
    for (let i = 0; width > m && i < n; i++) { // unit demand: over items and "nothing", too
      const chances = softmax(score, second + i * width, 1, m + 1);
      for (let j = 0; j < m; j++) allocation[i * m + j] = Math.min(allocation[i * m + j], chances[j]);
    }
    const payment = Float64Array.from(fractions(bids), sigmoid);
    for (let i = 0; i < n; i++) {
      let worth = 0;
      for (let j = 0; j < m; j++) worth += bids[i * m + j] * allocation[i * m + j];
      payment[i] *= worth;
    }
    return { allocation, payment };
  };
}

function perceptron(layers, activation) {
  const outputs = layers.map(({ bias }) => new Float64Array(bias.length));
  return (input) => layers.reduce((units, { weight, bias }, k) => {
    const output = outputs[k];
    for (let row = 0, at = 0; row < bias.length; row++) {
      let sum = bias[row];
      for (let column = 0; column < units.length; column++, at++) sum += weight[at] * units[column];
      output[row] = k < layers.length - 1 ? activation(sum) : sum;
    }
    return output;
  }, input);
}

/** Softmax of `count` scores, the first at `start`, each `stride` after the one before. */
function softmax(scores, start, stride, count) {
  const chances = new Float64Array(count);
  let most = -Infinity, total = 0;
  for (let k = 0; k < count; k++) most = Math.max(most, scores[start + k * stride]);
  for (let k = 0; k < count; k++) total += chances[k] = Math.exp(scores[start + k * stride] - most);
  for (let k = 0; k < count; k++) chances[k] /= total;
  return chances;
}

function sigmoid(t) {
  return 1 / (1 + Math.exp(-t));
}
