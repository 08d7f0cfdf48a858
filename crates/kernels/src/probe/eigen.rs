//! Eigenvalues of a small symmetric matrix: to three diagonals by reflections, then by counting and halving.

/// A symmetric matrix (N, N), row by row.
pub(super) struct Symmetric {
    n: usize,
    values: Vec<f64>,
}

impl Symmetric {
    /// The matrix whose lower triangle `value(i, j)`, j <= i, gives.
    pub(super) fn from(n: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let mut values = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let v = value(i, j);
                values[i * n + j] = v;
                values[j * n + i] = v;
            }
        }
        Symmetric { n, values }
    }

    /// Its diagonal and the one beside it, after reflections that keep the eigenvalues: A becomes H A H with
    /// H = I - 2 v v^T, column by column.
    fn tridiagonal(mut self) -> (Vec<f64>, Vec<f64>) {
        let n = self.n;
        let (mut diagonal, mut beside) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for k in 0..n {
            diagonal.push(self.values[k * n + k]);
            if k + 1 == n {
                break;
            }
            let mut v: Vec<f64> = (k + 1..n).map(|i| self.values[i * n + k]).collect();
            let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
            let target = -norm.copysign(v[0]);
            beside.push(target);
            v[0] -= target;
            let square: f64 = v.iter().map(|x| x * x).sum();
            if square > 0.0 {
                self.reflect(k + 1, &v, square);
            }
        }
        (diagonal, beside)
    }

    /// The block from `start` on becomes H A H = A - v w^T - w v^T, where v is not of unit length.
    fn reflect(&mut self, start: usize, v: &[f64], square: f64) {
        let (n, m) = (self.n, v.len());
        let at = |i: usize, j: usize| (start + i) * n + start + j;
        let row = |i: usize| &self.values[at(i, 0)..at(i, 0) + m];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let p: Vec<f64> = (0..m).map(|i| 2.0 * dot(row(i), v) / square).collect();
        let along = dot(&p, v) / square;
        let w: Vec<f64> = p.iter().zip(v).map(|(p, v)| p - along * v).collect();
        for i in 0..m {
            for j in 0..m {
                self.values[at(i, j)] -= v[i] * w[j] + w[i] * v[j];
            }
        }
    }
}

/// All eigenvalues, rising; exact to a rounding of the largest.
pub(super) fn eigenvalues(matrix: Symmetric) -> Vec<f64> {
    let (diagonal, beside) = matrix.tridiagonal();
    let reach = |i: usize| {
        let before = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        diagonal[i].abs() + before + beside.get(i).map_or(0.0, |b| b.abs())
    };
    let bound = (0..diagonal.len()).map(reach).fold(0.0, f64::max);
    (0..diagonal.len()).map(|k| nth(&diagonal, &beside, k, bound)).collect()
}

/// The eigenvalue that has `k` others below it, within -`bound` and `bound`.
fn nth(diagonal: &[f64], beside: &[f64], k: usize, bound: f64) -> f64 {
    let (mut low, mut high) = (-bound, bound);
    // Each halving gives a bit; a double has no more than these.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(diagonal, beside, middle) > k { high = middle } else { low = middle }
    }
    0.5 * (low + high)
}

/// How many eigenvalues lie below x: the negative pivots of A - x I (Sylvester's law of inertia).
fn below(diagonal: &[f64], beside: &[f64], x: f64) -> usize {
    let mut count = 0;
    let mut pivot = 1.0;
    for (i, d) in diagonal.iter().enumerate() {
        let carried = if i > 0 { beside[i - 1] * beside[i - 1] / pivot } else { 0.0 };
        pivot = d - x - carried;
        if pivot == 0.0 {
            pivot = -f64::MIN_POSITIVE;
        }
        count += usize::from(pivot < 0.0);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_eigenvalues_are_found() {
        // Of the second difference matrix of size n: 2 - 2 cos(k pi / (n + 1)).
        let n = 7;
        let matrix = Symmetric::from(n, |i, j| match i - j {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        });
        for (k, found) in eigenvalues(matrix).into_iter().enumerate() {
            let known = 2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((found - known).abs() < 1e-13, "{found} {known}");
        }
        // A full one: the values of diag(-1, 0.5, 4) turned about (1, 2, 2) / 3.
        let axis = [1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0];
        let values = [-1.0, 0.5, 4.0];
        let turn = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * axis[i] * axis[j];
        let full = Symmetric::from(3, |i, j| (0..3).map(|k| turn(i, k) * values[k] * turn(j, k)).sum());
        for (found, known) in eigenvalues(full).into_iter().zip(values) {
            assert!((found - known).abs() < 1e-14, "{found} {known}");
        }
        assert!(eigenvalues(Symmetric::from(0, |_, _| 0.0)).is_empty());
    }
}
