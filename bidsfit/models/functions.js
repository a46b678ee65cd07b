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
// Super-Lorentzian line (order 0) by the trapezoidal rule: over s from 0, less the part up to s1 (see functions.py).
function superlorentzian(n, x) {
  if (x > 12) return 0;
  const even = (power, step = 1 / 32) => {
    let total = Math.exp(-2 * x * x * power(0)) / 2, term = 1;
    for (let s = step; s < 20 && term > 1e-18; s += step) total += term = Math.exp(-2 * x * x * power(s));
    return total * step;
  };
  const sinh4 = (s) => Math.sinh(s) ** 4, half = Math.asinh(Math.SQRT1_2) / 2;
  let part = 0;
  for (let t = -3.25; t < 3.3; t += 1 / 32) {  // the interval from 0 to s1, by Takahasi and Mori
    const u = (Math.PI / 2) * Math.sinh(t);
    part += (Math.exp(-2 * x * x * sinh4(half * (1 + Math.tanh(u)))) * (Math.PI / 2) * Math.cosh(t)) / Math.cosh(u) ** 2;
  }
  return Math.sqrt(2 / (3 * Math.PI)) * (even((s) => Math.cosh(s) ** 4) + even(sinh4) - (part * half) / 32);
}
