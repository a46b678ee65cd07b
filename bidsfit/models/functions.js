// Boys function F_n(z) for z >= 0: a series of positive terms, or for large z the error function's limit and recursion.
function boys(n, z) {
  if (z < 30 + n) {
    let term = 1 / (2 * n + 1), total = term;
    for (let k = n + 1; term > 1e-17 * total; k++) total += (term *= (2 * z) / (2 * k + 1));
    return Math.exp(-z) * total;
  }
  let value = Math.sqrt(Math.PI / z) / 2;
  for (let k = 0; k < n; k++) value = ((2 * k + 1) * value - Math.exp(-z)) / (2 * z);
  return value;
}
// Mean of the Legendre polynomial of even order n over a Watson distribution, by a continued fraction.
function watson(n, concentration) {
  let ratio = 0, value = 1;
  for (let k = n + 60; k > 0; k -= 2) {
    const above = (2 * k + 1) * (1 - (2 * concentration) / ((2 * k + 3) * (2 * k - 1)));
    ratio = (2 * concentration * (k - 1)) / (2 * k - 1) / (above + ((2 * concentration * (k + 2)) / (2 * k + 3)) * ratio);
    if (k <= n) value *= ratio;
  }
  return value;
}
// Coefficient of order n of the signal of a stick.
function stick(n, z) {
  return boys(0, z) * watson(n, -z);
}
