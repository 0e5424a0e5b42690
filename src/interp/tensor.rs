//! Dense row-major tensors and strided iteration.

/// A dense real tensor, row major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Lengths, slowest axis first; the place index leads unless `Whole`.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` elements.
    pub data: Vec<f64>,
}

impl Tensor {
    /// All elements zero.
    pub fn zeros(shape: &[usize]) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            data: vec![0.0; shape.iter().product()],
        }
    }

    /// A single number, shape `[]`.
    pub fn scalar(x: f64) -> Tensor {
        Tensor {
            shape: Vec::new(),
            data: vec![x],
        }
    }

    /// Element by element from the flat index.
    pub fn from_fn(shape: &[usize], f: impl FnMut(usize) -> f64) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor {
            shape: shape.to_vec(),
            data: (0..len).map(f).collect(),
        }
    }

    /// Elements per step of each axis.
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.shape)
    }
}

/// Row-major strides.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Calls `f` for every multi-index of `shape` in row-major order with the
/// offsets it has under `K` stride vectors (of the same length as `shape`).
pub(super) fn for_each_offset<const K: usize>(
    shape: &[usize],
    strides: [&[usize]; K],
    mut f: impl FnMut([usize; K]),
) {
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; shape.len()];
    let mut offset = [0; K];
    loop {
        f(offset);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                for k in 0..K {
                    offset[k] += strides[k][axis];
                }
                break;
            }
            index[axis] = 0;
            for k in 0..K {
                offset[k] -= strides[k][axis] * (shape[axis] - 1);
            }
        }
    }
}
