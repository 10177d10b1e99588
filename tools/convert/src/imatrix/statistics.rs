//! What an entry of an importance matrix looks like.

use super::Entry;

/// Below this, a column counts as unused; llama.cpp's threshold.
const INACTIVE: f64 = 1e-5;

/// Of the mean squares of a tensor's columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Columns, of all experts.
    pub columns: usize,
    /// Tokens; of the expert that had the most.
    pub tokens: u64,
    /// Experts that no token came by.
    pub unused: usize,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their standard deviation.
    pub stddev: f64,
    /// The share of columns above 0.00001.
    pub active: f64,
    /// The entropy of their shares of the sum, as a part of what it would be if all were equal.
    pub entropy: f64,
}

impl Entry {
    /// Statistics of the mean squares.
    pub fn statistics(&self) -> Statistics {
        let means: Vec<f64> = self.means().into_iter().map(f64::from).collect();
        let n = means.len() as f64;
        let sum: f64 = means.iter().sum();
        let squares: f64 = means.iter().map(|x| x * x).sum();
        let share = |x: &f64| x / sum;
        let shares = means.iter().map(share).filter(|p| *p > 0.0);
        let entropy: f64 = shares.map(|p| -p * libm::log(p)).sum();
        let equal = libm::log(n);
        Statistics {
            columns: means.len(),
            tokens: self.counts.iter().max().copied().unwrap_or(0),
            unused: self.counts.iter().filter(|count| **count == 0).count(),
            sum,
            min: means.iter().copied().fold(f64::INFINITY, f64::min),
            max: means.iter().copied().fold(0.0, f64::max),
            stddev: (squares / n - (sum / n) * (sum / n)).max(0.0).sqrt(),
            active: means.iter().filter(|x| **x > INACTIVE).count() as f64 / n,
            entropy: if equal > 0.0 { entropy / equal } else { 1.0 },
        }
    }
}
