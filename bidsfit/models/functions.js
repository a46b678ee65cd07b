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
