//! Sketches: how the columns of a matrix are used together, in a few numbers for each.
//!
//! Of the matrix `H` of the sums of the products of any two columns' inputs, a file has the product
//! with a matrix of random signs, `Y = H S`. From that follows the approximation of Nyström, which is
//! exact for an `H` of no higher rank and takes in the directions in which the inputs are largest
//! otherwise (Halko, Martinsson and Tropp, 2011; Tropp et al., 2017):
//!
//! ```text
//! H ~ Y (S' Y)^-1 Y' = U U',    U = Y L'^-1,    L L' = S' Y
//! ```
//!
//! Sketches can be added like the sums of squares.

use std::sync::Arc;

use siskin::gguf::GgufFile;
use siskin::model::{SKETCH, sketch_signs};
use siskin_quant::quantize::recode::Feedback;

use super::file;

/// Fewer tokens than this say little about directions.
pub(super) const MIN_TOKENS: u64 = 1024;
/// At least so much of a column's mean square is taken to be its own, in no direction.
const MIN_REST: f32 = 0.05;
/// The least mean square of a column beside the greatest.
const MIN_OWN: f32 = 1e-9;
/// By how much rounding can make a column's share in the directions larger than it is.
const MAX_ROUNDING: f32 = 1e-3;
/// Directions that are less than this beside the others are rounding.
const MIN_PIVOT: f64 = 1e-7;

/// A row for each column.
type Rows = Vec<[f32; SKETCH]>;

/// The sketch of an input: in memory, or still in a file.
#[derive(Clone, Debug)]
pub enum Sketch {
    /// The rows.
    Held(Arc<Rows>),
    /// The file, and which of its tensors it is.
    InFile(Arc<GgufFile>, usize),
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Sketch) -> bool {
        self.rows() == other.rows()
    }
}

impl Sketch {
    /// Its rows. The error is only the reason.
    pub(super) fn rows(&self) -> Result<Arc<Rows>, String> {
        match self {
            Sketch::Held(rows) => Ok(rows.clone()),
            Sketch::InFile(file, tensor) => {
                let tensor = file.tensors().get(*tensor).ok_or("it is gone")?;
                Ok(Arc::new(file::values(file, tensor)?.as_chunks().0.to_vec()))
            }
        }
    }

    /// True if both are the same place: not only the same numbers.
    pub(super) fn is(&self, other: &Sketch) -> bool {
        match (self, other) {
            (Sketch::Held(a), Sketch::Held(b)) => Arc::ptr_eq(a, b),
            (Sketch::InFile(a, i), Sketch::InFile(b, j)) => Arc::ptr_eq(a, b) && i == j,
            _ => false,
        }
    }

    /// Its sum with another.
    pub(super) fn add(&self, other: &Sketch) -> Result<Sketch, String> {
        let (mut sum, other) = (Arc::unwrap_or_clone(self.rows()?), other.rows()?);
        if sum.len() != other.len() {
            return Err(format!("sketches of {} and {} columns", sum.len(), other.len()));
        }
        for (sum, x) in sum.as_flattened_mut().iter_mut().zip(other.as_flattened()) {
            *sum += x;
        }
        Ok(Sketch::Held(Arc::new(sum)))
    }

    /// What a quantizer needs, of columns with these sums of squares. `None` if there were too few
    /// tokens, or nothing but zeros.
    pub(super) fn feedback(&self, sums: &[f32], tokens: u64) -> Result<Option<Feedback>, String> {
        let rows = self.rows()?;
        if rows.len() != sums.len() {
            return Err(format!("a sketch of {} columns, sums of {}", rows.len(), sums.len()));
        }
        let values = rows.as_flattened();
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(format!("value {at} of its sketch is {}", values[at]));
        }
        let largest = sums.iter().fold(0.0f32, |max, sum| max.max(*sum));
        if tokens < MIN_TOKENS || largest < f32::MIN_POSITIVE {
            return Ok(None);
        }
        let factor = Factor::of(&rows);
        // All relative to the largest, which keeps the numbers in range.
        let (root, scale) = (f64::from(largest).sqrt().recip(), largest.recip());
        let factors: Rows =
            rows.iter().map(|row| factor.solve(row).map(|u| (u * root) as f32)).collect();
        let mut rest = Vec::with_capacity(sums.len());
        for (column, (sum, u)) in sums.iter().zip(&factors).enumerate() {
            let own = (sum * scale).max(MIN_OWN);
            let shared: f32 = u.iter().map(|u| u * u).sum();
            // More is not possible, but for rounding.
            if shared.is_nan() || shared > 2.0 * own + MAX_ROUNDING {
                return Err(format!("its sketch is not of these sums: column {column}"));
            }
            rest.push((own - shared).max(MIN_REST * own));
        }
        let feedback = Feedback::new(factors, rest);
        match feedback.is_finite() {
            true => Ok(Some(feedback)),
            false => Err("its sketch is that of no inputs".to_string()),
        }
    }
}

/// The factor `L` of `S' Y`, of which directions are left out that are only rounding.
struct Factor {
    rows: [[f64; SKETCH]; SKETCH],
    /// The inverse of the diagonal; zero for what is left out.
    inverse: [f64; SKETCH],
}

impl Factor {
    fn of(sketch: &[[f32; SKETCH]]) -> Factor {
        let mut product = [[0.0f64; SKETCH]; SKETCH];
        for (column, row) in sketch.iter().enumerate() {
            let row = row.map(f64::from);
            for (sums, sign) in product.iter_mut().zip(sketch_signs(column)) {
                let sign = f64::from(sign);
                for (sum, y) in sums.iter_mut().zip(&row) {
                    *sum += sign * y;
                }
            }
        }
        // Symmetric but for rounding.
        for i in 0..SKETCH {
            for j in 0..i {
                let mean = (product[i][j] + product[j][i]) / 2.0;
                (product[i][j], product[j][i]) = (mean, mean);
            }
        }
        let mut factor = Factor { rows: [[0.0; SKETCH]; SKETCH], inverse: [0.0; SKETCH] };
        for i in 0..SKETCH {
            for j in 0..=i {
                let dot: f64 = (0..j).map(|k| factor.rows[i][k] * factor.rows[j][k]).sum();
                let left = product[i][j] - dot;
                if i != j {
                    factor.rows[i][j] = left * factor.inverse[j];
                } else if left > MIN_PIVOT * product[i][i] {
                    factor.rows[i][i] = left.sqrt();
                    factor.inverse[i] = left.sqrt().recip();
                }
            }
        }
        factor
    }

    /// `L^-1 y`, the row of `U` that belongs to a row of `Y`.
    fn solve(&self, y: &[f32; SKETCH]) -> [f64; SKETCH] {
        let mut u = [0.0; SKETCH];
        for i in 0..SKETCH {
            let dot: f64 = self.rows[i][..i].iter().zip(&u).map(|(l, u)| l * u).sum();
            u[i] = (f64::from(y[i]) - dot) * self.inverse[i];
        }
        u
    }
}
